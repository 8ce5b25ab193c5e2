"""Fixtures and checks for every test of the core."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes depends on what else runs on the machine.
settings.register_profile("dws", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dws")

_ENDING_S = 30.0
"""Time in seconds for tasks that are still ending when the test is over."""


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio, the event loop of FastAPI's servers."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _leak_check(request: pytest.FixtureRequest) -> None:
    """Fail every async test that leaves a task running.

    The fixture is requested here and not by a mark, because folders without this check share the tests of the suites.
    There is no check for calls that block the event loop, because asyncio measures time, which fails on busy machines.
    """
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("no_leaked_tasks")


@pytest.fixture
async def no_leaked_tasks(anyio_backend: str) -> AsyncIterator[None]:
    """Fail a test that leaves tasks running that do not end."""
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
    """Return whether a task is the one in which anyio's plugin runs this fixture."""
    return task is asyncio.current_task() or "TestRunner" in getattr(task.get_coro(), "__qualname__", "")
