"""Cancelling the handler of a disconnected client."""

from __future__ import annotations

import asyncio

import pytest

from dws_core._node.connection.handler_guard import HandlerGuard


class Handler:
    """A guarded handler that waits for an event other than its client's messages."""

    def __init__(self, grace_s: float = 0.0) -> None:
        self.grace_s = grace_s
        self.ready = asyncio.Event()
        self.swallowed: bool | None = None
        self.guard: HandlerGuard

    async def __call__(self) -> None:
        self.guard = HandlerGuard("ann", self.grace_s)
        self.ready.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.guard.release()
            self.swallowed = self.guard.swallow()
            if not self.swallowed:
                raise


async def test_handler_is_cancelled_after_grace_and_ends_normally(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="dws")
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
    assert "connection 'ann': the handler is cancelled" in caplog.text


async def test_outside_cancellation_is_not_swallowed() -> None:
    handler = Handler()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(handler())
        await handler.ready.wait()
        task.cancel()
    assert not handler.guard.cancelled
    assert handler.swallowed is False
    assert task.cancelled()


async def test_outside_cancellation_wins_over_guard() -> None:
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
async def test_ended_handler_is_not_cancelled(gone_first: bool) -> None:
    guard = HandlerGuard("ann", 0.0)  # of this test's own task
    if gone_first:
        guard.start_grace()
    guard.release()
    if not gone_first:
        guard.start_grace()
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, passed.set)  # after a timer of 0 s
    await passed.wait()
    assert not guard.cancelled
    assert not guard.swallow()


async def test_finished_task_is_not_cancelled() -> None:
    made: list[HandlerGuard] = []

    async def short() -> None:
        made.append(HandlerGuard("ann", 0.0))

    await asyncio.gather(short())
    made[0].start_grace()
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, passed.set)
    await passed.wait()
    assert not made[0].cancelled


async def test_handler_is_not_cancelled_within_grace() -> None:
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
