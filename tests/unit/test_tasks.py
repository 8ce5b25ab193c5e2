"""Background tasks stop together, and no failure is lost."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dws_core._tasks import Tasks


async def _fail(error: BaseException) -> None:
    raise error


async def _forever() -> None:
    await asyncio.Event().wait()


async def test_task_has_its_name_and_is_removed_at_end() -> None:
    tasks = Tasks()
    task = tasks.spawn(asyncio.sleep(0, "result"), name="short")
    assert task.get_name() == "short"
    assert len(tasks) == 1
    assert await task == "result"
    await tasks.stop()
    assert len(tasks) == 0


async def test_stop_cancels_tasks_and_waits_for_cleanup() -> None:
    tasks, tidied = Tasks(), []

    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied.append(True)

    task = tasks.spawn(tidy(), name="tidy")
    await asyncio.sleep(0)
    await tasks.stop()
    assert tidied == [True]
    assert task.cancelled()


async def test_task_started_during_stop_is_stopped_too() -> None:
    tasks = Tasks()

    async def hydra() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tasks.spawn(_forever(), name="another head")

    tasks.spawn(hydra(), name="hydra")
    await asyncio.sleep(0)
    await tasks.stop()
    assert len(tasks) == 0


async def test_failures_are_logged_and_raised_once_by_stop(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    with caplog.at_level(logging.ERROR, logger="dws"):
        failing = [tasks.spawn(_fail(ValueError(text)), name=f"task {text}") for text in "ab"]
        await asyncio.wait(failing)
        tasks.spawn(_forever(), name="healthy")
        with pytest.raises(ExceptionGroup) as caught:
            await tasks.stop()
    assert sorted(str(error) for error in caught.value.exceptions) == ["a", "b"]
    assert "'task a' failed" in caplog.text
    assert "'task b' failed" in caplog.text
    await tasks.stop()


async def test_base_exception_is_logged_but_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(BaseException):
        """An exception of another library that is not an `Exception`."""

    tasks = Tasks()
    with caplog.at_level(logging.ERROR, logger="dws"):
        await asyncio.wait([tasks.spawn(_fail(Odd("odd")), name="strange")])
        await tasks.stop()
    assert "'strange' failed" in caplog.text


async def test_task_may_stop_others_without_stopping_itself() -> None:
    tasks, done = Tasks(), []

    async def stopper() -> None:
        await tasks.stop()
        done.append(len(tasks))

    other = tasks.spawn(_forever(), name="other")
    await tasks.spawn(stopper(), name="stopper")
    assert done == [1], "only itself is left"
    assert other.cancelled()
