"""Background tasks end as a whole, and none in silence."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dws_core._tasks import Tasks


async def _fail(error: BaseException) -> None:
    raise error


async def _forever() -> None:
    await asyncio.Event().wait()


async def test_a_task_runs_under_its_name_and_is_forgotten_when_it_ends() -> None:
    tasks = Tasks()
    task = tasks.spawn(asyncio.sleep(0, "result"), name="short")
    assert task.get_name() == "short"
    assert len(tasks) == 1
    assert await task == "result"
    await tasks.stop()
    assert len(tasks) == 0


async def test_stopping_cancels_what_runs_and_waits_until_it_has_tidied_up() -> None:
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


async def test_a_task_that_starts_another_while_it_ends_takes_it_along() -> None:
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


async def test_failures_are_logged_at_once_and_raised_by_stop_once(caplog: pytest.LogCaptureFixture) -> None:
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


async def test_what_is_no_exception_is_logged_but_not_put_into_a_group(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(BaseException):
        """Of a library that means it."""

    tasks = Tasks()
    with caplog.at_level(logging.ERROR, logger="dws"):
        await asyncio.wait([tasks.spawn(_fail(Odd("odd")), name="strange")])
        await tasks.stop()
    assert "'strange' failed" in caplog.text


async def test_a_task_may_stop_the_others_without_ending_itself() -> None:
    tasks, done = Tasks(), []

    async def stopper() -> None:
        await tasks.stop()
        done.append(len(tasks))

    other = tasks.spawn(_forever(), name="other")
    await tasks.spawn(stopper(), name="stopper")
    assert done == [1], "only itself is left"
    assert other.cancelled()
