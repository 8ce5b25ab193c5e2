"""Coroutines that begin as a part of a task that does not run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from support.timeouts import HANG_S

from dws_core._node.sending.first_step import rest_of, start_in_task

_name: ContextVar[str] = ContextVar("_name", default="")


class _Task:
    """A task that continues one coroutine, which is started from a callback of the event loop."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.context = copy_context()
        self.begun: asyncio.Future[Any] = loop.create_future()
        self.task = loop.create_task(self._run(), context=self.context)

    async def _run(self) -> Any:
        return await (await self.begun)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.begun.set_result(rest_of(coroutine, start_in_task(coroutine, self.task, self.context)))

    async def start_in_callback(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        asyncio.get_running_loop().call_soon(self.start, coroutine)
        async with asyncio.timeout(HANG_S):
            return await self.task


async def _whoami(at_once: asyncio.Event, proceed: asyncio.Event) -> list[Any]:
    found = [asyncio.current_task()]
    token = _name.set("inside")
    at_once.set()
    await proceed.wait()
    _name.reset(token)  # raises in another context
    return [*found, asyncio.current_task()]


async def test_coroutine_runs_in_task_and_context_from_the_start() -> None:
    at_once, proceed, task = asyncio.Event(), asyncio.Event(), _Task()
    coroutine = _whoami(at_once, proceed)
    asyncio.get_running_loop().call_soon(task.start, coroutine)
    await at_once.wait()
    assert _name.get() == ""
    proceed.set()
    assert await task.task == [task.task, task.task]


async def test_coroutine_that_never_waits_ends_at_once() -> None:
    task = _Task()

    async def quick() -> int:
        return 5

    def start() -> None:
        with pytest.raises(StopIteration) as end:
            start_in_task(quick(), task.task, task.context)
        ended.set_result(end.value.value)

    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(start)
    assert await ended == 5
    task.task.cancel()


async def test_timeout_that_began_before_the_task_works() -> None:
    async def limited() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timeout"
        return "no timeout"

    assert await _Task().start_in_callback(limited()) == "timeout"


async def test_coroutine_waits_again_and_raises() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        await _Task().start_in_callback(fails())


async def test_cancellation_of_task_reaches_the_coroutine() -> None:
    ended, task = asyncio.Event(), _Task()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    asyncio.get_running_loop().call_soon(task.start, waits())
    await task.begun
    await asyncio.wait({task.task}, timeout=0)
    task.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task.task
    assert ended.is_set()


async def test_other_running_task_leaves_the_coroutine_unstarted() -> None:
    task, started = _Task(), []

    async def work() -> int:
        started.append(asyncio.current_task())
        return 7

    task.start(work())  # this test is a task
    assert not started
    assert await task.task == 7
    assert started == [task.task]
