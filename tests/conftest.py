"""What every test of the core runs under."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest

_ENDING_S = 2.0
"""For what is on its way to its end when the test is over."""


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio: the event loop of FastAPI's servers."""
    return "asyncio"


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(name: str, obj: object) -> None:
    """Let every async test leave no task behind."""
    if name.startswith("test") and inspect.iscoroutinefunction(obj):
        pytest.mark.usefixtures("no_leaked_tasks")(obj)


@pytest.fixture
async def no_leaked_tasks(anyio_backend: str) -> AsyncIterator[None]:
    """Fail a test that leaves tasks which do not end."""
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if not _is_the_runners(task)}
    if left:
        _, left = await asyncio.wait(left, timeout=_ENDING_S)
    for task in left:
        task.cancel()
    names = sorted(f"{task.get_name()}: {task.get_coro()}" for task in left)
    assert not names, f"the test leaves {len(names)} tasks running: {names}. Fix: stop what it started"


def _is_the_runners(task: asyncio.Task[object]) -> bool:
    """Say whether a task is the one in which anyio's plugin runs this very fixture."""
    return task is asyncio.current_task() or "TestRunner" in getattr(task.get_coro(), "__qualname__", "")
