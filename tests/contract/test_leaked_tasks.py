"""The check for leaked tasks detects a test that leaves a task running."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"

LEAKY = """
import asyncio
import pytest

def spawn(name):
    return asyncio.get_running_loop().create_task(asyncio.Event().wait(), name=name)

async def test_leaks():
    spawn("the leak")

class TestInAClass:
    async def test_leaks_too(self):
        spawn("another leak")

async def test_tidies_up():
    spawn("on its way to its end").cancel()

@pytest.fixture
async def task():
    task = spawn("of a fixture")
    yield task
    task.cancel()

async def test_has_a_fixture_that_tidies_up(task):
    assert not task.done()

def test_is_not_async():
    pass
"""

SUITE = """
class Suite:
    async def test_is_shared(self):
        pass
"""
USER = "from suite import Suite\n\nclass TestSuite(Suite):\n    pass\n"


def _run(folder: Path) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "anyio_mode=auto"]
    command += ["-o", f"pythonpath={folder}", "--import-mode=importlib", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder).stdout


def test_leaked_task_fails_its_test_by_name(tmp_path: Path) -> None:
    conftest = CONFTEST.read_text()
    impatient = conftest.replace("_ENDING_S = 30.0", "_ENDING_S = 0.1")
    assert impatient != conftest
    (tmp_path / "conftest.py").write_text(impatient)
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    out = _run(tmp_path)
    assert "5 passed, 2 errors" in out, out
    assert "the test leaves 1 tasks running: ['the leak" in out
    assert "the test leaves 1 tasks running: ['another leak" in out


def test_checked_suite_also_runs_without_check(tmp_path: Path) -> None:
    (tmp_path / "suite.py").write_text(SUITE)
    for folder in (tmp_path / "checked", tmp_path / "unchecked"):
        folder.mkdir()
        (folder / "test_user.py").write_text(USER)
    shutil.copy(CONFTEST, tmp_path / "checked" / "conftest.py")
    (tmp_path / "conftest.py").write_text(
        "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    )
    out = _run(tmp_path)
    assert "2 passed" in out, out
