"""The guides for plugin authors work: the tests follow each page literally, from an empty folder to a green kit."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = {
    "write-a-plain-broker.md": "broker",
    "write-a-stream-broker.md": "broker --wire",
    "write-a-codec.md": "codec",
    "write-an-authenticator.md": "authenticator",
    "write-a-topic-matcher.md": "matcher",
}

STEP = re.compile(
    r"^```sh\n(?P<commands>.*?)^```"
    r"|^`(?P<path>[\w./-]+)`\n\n(?:<!-- [^\n]+ -->\n)?```\w+\n(?P<text>.*?)^```"
    r"|end of `(?P<end_of>[\w./-]+)`:\n\n(?:<!-- [^\n]+ -->\n)?```\w+\n(?P<more>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
"""The steps of a page: commands, a file with its path, or an addition to the end of a file."""

CORE_FROM_CHECKOUT = 'pip install -e "/path/to/dws[testing]" -e /path/to/dws/plugins/dws_memory'
INSTALL_PLUGIN = 'pip install -e ".[dev]"'


@dataclass
class Reader:
    """A reader of a guide, in a folder of its own.

    Packages are not installed by pip, which would need a network and a build backend. Their metadata is written into
    the folder `site` as pip does it for an editable install.
    """

    root: Path
    folder: Path
    path: list[Path]

    def run(self, command: str) -> str:
        """Do what a line says. Return the output."""
        words = shlex.split(command)
        if command == CORE_FROM_CHECKOUT:  # is there already, so only the paths are checked
            assert all((ROOT / found / "pyproject.toml").exists() for found in (".", "plugins/dws_memory"))
            return ""
        if command == INSTALL_PLUGIN:
            self._install()
            return ""
        if words[0] == "cd":
            self.folder /= words[1]
            assert self.folder.is_dir(), self.folder
            return ""
        if words[0] in ("ruff", "mypy"):
            if importlib.util.find_spec(words[0]) is None:
                return "not installed here, see tests/contract/test_skeletons.py"
            words = ["python", "-m", *words]
        assert words[0] == "python", f"a reader cannot run {command!r} here"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, self.path))}
        ran = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    def _install(self) -> None:
        project = tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]
        assert "dev" in project["optional-dependencies"]
        info = self.root / "site" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        header = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(header)
        lines = [f"{name} = {module}" for name, module in project["entry-points"]["dws_core"].items()]
        (info / "entry_points.txt").write_text("\n".join(["[dws_core]", *lines, ""]))
        self.path[:0] = [self.root / "site", self.folder / "src"]


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    folder = tmp_path / "empty"
    folder.mkdir()
    return Reader(tmp_path, folder, [ROOT, ROOT / "plugins/dws_memory/src"])


def _steps(page: str) -> list[re.Match[str]]:
    return list(STEP.finditer((ROOT / "docs/plugins" / page).read_text()))


def _commands(page: str) -> list[str]:
    return [line for step in _steps(page) for line in (step["commands"] or "").splitlines()]


def _assert_green(output: str) -> None:
    assert re.search(r"=+ \d+ passed(, \d+ (skipped|deselected))* in ", output), output


@pytest.mark.parametrize("page", GUIDES)
def test_guide_begins_in_empty_folder(page: str) -> None:
    kind, name, *options = _commands(page)[1].split()[4:]
    assert " ".join([kind, *options]) == GUIDES[page]
    assert _steps(page)[0]["commands"].splitlines() == [
        CORE_FROM_CHECKOUT,
        " ".join(["python -m dws_core new", kind, name, *options]),
        f"cd dws-{name}",
        INSTALL_PLUGIN,
        "python -m pytest",
    ]


@pytest.mark.parametrize("page", GUIDES)
def test_guide_leads_to_green_kit(page: str, reader: Reader) -> None:
    """The commands run in the order of the page. The files of the page are those that `new` has written."""
    start, compared = reader.folder, 0
    for step in _steps(page):
        for command in (step["commands"] or "").splitlines():
            output = reader.run(command)
            if command == "python -m pytest":
                _assert_green(output)
            elif command == "python -m dws_core plugins":
                assert reader.folder.name in output
        if step["path"]:
            assert (start / step["path"]).read_text() == step["text"], step["path"]
            compared += 1
        if step["end_of"]:
            with (start / step["end_of"]).open("a") as file:
                file.write("\n" + step["more"])
    assert compared == 5


@pytest.mark.parametrize("page", GUIDES)
def test_files_of_guide_are_sufficient(page: str, reader: Reader) -> None:
    """A reader who copies the files of the page into an empty folder gets a green kit as well."""
    for step in _steps(page):
        if step["path"]:
            file = reader.folder / step["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(step["text"])
    for command in (_commands(page)[2], INSTALL_PLUGIN):
        reader.run(command)
    _assert_green(reader.run("python -m pytest"))
