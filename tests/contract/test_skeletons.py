"""Each skeleton passes ruff and strict mypy as it is written, also with a long name."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dws_core._new import KINDS, MAX_NAME, write_skeleton
from dws_core._plugins.registry import default_registry

ROOT = Path(__file__).parents[2]
LONG = "a-" + "x" * (MAX_NAME - 2)


def _run(folder: Path, tool: str, *arguments: str) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed. `nox -s lint types` runs this test with it")
    path = os.pathsep.join(map(str, (ROOT, ROOT / "plugins/dws_memory/src")))
    ran = subprocess.run(
        [sys.executable, "-m", tool, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", ["ab", LONG])
@pytest.mark.parametrize("kind", KINDS)
def test_skeleton_passes_ruff(kind: str, name: str, tmp_path: Path) -> None:
    folder = write_skeleton(kind, name, tmp_path, default_registry())
    _run(folder, "ruff", "format", "--check", "--no-cache", ".")
    _run(folder, "ruff", "check", "--no-cache", ".")


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all kinds. Most of the time is spent on the dependencies."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("kind", KINDS)
def test_skeleton_passes_strict_mypy(kind: str, tmp_path: Path, mypy_cache: Path) -> None:
    folder = write_skeleton(kind, LONG, tmp_path, default_registry())
    assert "strict = true" in (folder / "pyproject.toml").read_text()
    _run(folder, "mypy", f"--cache-dir={mypy_cache}")
