"""The metadata of the distributions is consistent."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


def _project(folder: Path) -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_plugin_has_matching_version_and_files(folder: Path) -> None:
    project = _project(folder)
    assert project["version"] == _project(ROOT)["version"]
    assert any(str(d).replace(" ", "").startswith("dws-core>=0.1,<1") for d in project["dependencies"])  # type: ignore[attr-defined]
    assert project["entry-points"] == {"dws_core": {folder.name.removeprefix("dws_"): folder.name}}
    assert project["requires-python"] == ">=3.11"
    for name in ("README.md", "LICENSE", f"src/{folder.name}/py.typed", "tests"):
        assert (folder / name).exists(), name


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_plugin_has_extra_in_core(folder: Path) -> None:
    extras: dict[str, list[str]] = _project(ROOT)["optional-dependencies"]  # type: ignore[assignment]
    name = folder.name.removeprefix("dws_")
    assert extras[name] == [f"dws-{name}>=0.1,<1"]
    assert extras[name][0] in extras["all"]
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tool["uv"]["sources"][f"dws-{name}"] == {"workspace": True}


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda p: p.name)
def test_metadata_has_links_and_every_supported_python(folder: Path) -> None:
    project = _project(folder)
    assert project["urls"] == {"Homepage": f"https://pypi.org/project/{project['name']}/"}
    classifiers: list[str] = project["classifiers"]  # type: ignore[assignment]
    pythons = [name.removeprefix("Programming Language :: Python :: ") for name in classifiers]
    assert [name for name in pythons if name.startswith("3.")] == ["3.11", "3.12", "3.13", "3.14"]
    assert classifiers == sorted(classifiers)
    assert {"Framework :: FastAPI", "Typing :: Typed"} <= set(classifiers)


PAGES = [path for pattern in ("*.md", "docs/**/*.md", "*/*/README.md") for path in ROOT.glob(pattern)]
PIP = re.compile(r"pip install ([^`\n#]+)")
OWN = re.compile(r"(?<![\w./-])(dws-\w+)(?:\[([\w,]+)\])?")
FOLDER = re.compile(r"(?<![\w./])\./(?:dws/)?((?:plugins|examples)/\w+)")  # some pages clone the repository to ./dws


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pip_lines_name_existing_packages(page: Path) -> None:
    """A name of an index is a distribution of this repository, and the page has a command for a checkout, too."""
    text = page.read_text()
    extras = {
        str(_project(folder)["name"]): _project(folder).get("optional-dependencies", {}) for folder in [ROOT, *PLUGINS]
    }
    for line in PIP.findall(text):
        for name, wanted in OWN.findall(line):
            assert set(filter(None, wanted.split(","))) <= set(extras[name]), line  # type: ignore[call-overload]
            assert "checkout" in text or FOLDER.search(text), f"{line!r} works only after a release"
        for folder in FOLDER.findall(line):
            assert (ROOT / folder / "pyproject.toml").exists(), line


def test_start_pages_install_from_a_clone_and_from_the_index() -> None:
    for page in ("README.md", "docs/tutorial.md"):
        text = (ROOT / page).read_text()
        assert "pip install . ./plugins/dws_memory" in text, page
        assert 'pip install "dws-core[memory]"' in text, page


def test_core_is_typed_and_licensed() -> None:
    assert (ROOT / "dws_core/py.typed").exists()
    assert "MIT" in (ROOT / "LICENSE").read_text()


def test_pytest_plugin_imports_nothing_in_other_runs(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_nothing_of_dws_is_here():\n"
        "    assert '_dws_pytest' in sys.modules\n"
        "    assert not {'dws_core', 'fastapi', 'starlette', 'msgspec'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout
