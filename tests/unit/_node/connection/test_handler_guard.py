"""The end of a handler whose client is gone."""

from __future__ import annotations

import asyncio

import pytest

from dws_core._node.connection.handler_guard import HandlerGuard


class Handler:
    """A handler that waits for something else than its client, under a guard."""

    def __init__(self, grace_s: float = 0.0) -> None:
        self.grace_s = grace_s
        self.ready = asyncio.Event()
        self.swallowed: bool | None = None
        self.guard: HandlerGuard

    async def __call__(self) -> None:
        self.guard = HandlerGuard(self.grace_s)
        self.ready.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.guard.release()
            self.swallowed = self.guard.swallow()
            if not self.swallowed:
                raise


async def test_a_handler_is_cancelled_after_the_grace_time_and_ends_as_if_by_itself() -> None:
    handler = Handler()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(handler())
        await handler.ready.wait()
        assert not handler.guard.cancelled
        handler.guard.start_grace()
        handler.guard.start_grace()
    assert handler.guard.cancelled
    assert handler.swallowed is True
    assert not task.cancelled()


async def test_a_cancellation_from_outside_is_not_swallowed() -> None:
    handler = Handler()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(handler())
        await handler.ready.wait()
        task.cancel()
    assert not handler.guard.cancelled
    assert handler.swallowed is False
    assert task.cancelled()


async def test_a_cancellation_from_outside_that_comes_with_the_guards_wins() -> None:
    handler = Handler()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(handler())
        await handler.ready.wait()
        handler.guard._cancel()
        task.cancel()
    assert handler.guard.cancelled
    assert handler.swallowed is False
    assert task.cancelled()


@pytest.mark.parametrize("gone_first", [True, False])
async def test_a_handler_that_has_ended_by_itself_is_left_alone(gone_first: bool) -> None:
    guard = HandlerGuard(0.0)  # of this test's own task
    if gone_first:
        guard.start_grace()
    guard.release()
    if not gone_first:
        guard.start_grace()
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, passed.set)  # behind a timer of 0 s
    await passed.wait()
    assert not guard.cancelled
    assert not guard.swallow()


async def test_a_task_that_is_done_is_not_cancelled() -> None:
    made: list[HandlerGuard] = []

    async def short() -> None:
        made.append(HandlerGuard(0.0))

    await asyncio.gather(short())
    made[0].start_grace()
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, passed.set)
    await passed.wait()
    assert not made[0].cancelled


async def test_the_grace_time_is_kept() -> None:
    handler = Handler(grace_s=3600.0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(handler())
        await handler.ready.wait()
        handler.guard.start_grace()
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.001, passed.set)
        await passed.wait()
        assert not handler.guard.cancelled
        task.cancel()
