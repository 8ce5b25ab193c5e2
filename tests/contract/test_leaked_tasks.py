"""The check that no test leaves a task behind finds one that does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"
LEAKY = """
import asyncio

async def test_leaks():
    asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="the leak")

async def test_tidies_up():
    task = asyncio.get_running_loop().create_task(asyncio.Event().wait())
    task.cancel()
"""


def test_a_task_that_is_left_behind_fails_its_test_by_name(tmp_path: Path) -> None:
    shutil.copy(CONFTEST, tmp_path / "conftest.py")
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "anyio_mode=auto", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "2 passed, 1 error" in ran.stdout, ran.stdout
    assert "the test leaves 1 tasks running: ['the leak" in ran.stdout
