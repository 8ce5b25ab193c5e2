"""A publish in progress: awaited, made a task, waited for in a thread, or dropped."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from support.timeouts import HANG_S

from dws_core import BrokerClosed, BrokerUnavailable, ConfigurationError, PendingPublish, Receipt
from dws_core._node.pending_publish import acts_as_coroutine, call_in_loop

T = TypeVar("T")
STORED = Receipt(epoch=b"e" * 8, offset=1)


def pending(count: int = 1) -> tuple[PendingPublish, list[asyncio.Future[Receipt]]]:
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[Receipt]] = [loop.create_future() for _ in range(count)]
    return PendingPublish(futures, "t"), futures


async def in_thread(call: Callable[[], T]) -> T:
    async with asyncio.timeout(HANG_S):
        return await asyncio.to_thread(call)


async def test_awaiting_returns_a_receipt_for_each_topic() -> None:
    publish, futures = pending(2)
    for future in futures:
        future.set_result(STORED)
    assert await publish == [STORED, STORED]
    assert await publish == [STORED, STORED], "it can be awaited again"


async def test_receipts_are_completed_however_they_are_awaited() -> None:
    (future,) = pending()[1]
    future.set_result(STORED)
    for futures in ([future], [future, future]):
        publish = PendingPublish(futures, "t", lambda receipts: [*receipts, STORED])
        assert await publish == [*([STORED] * len(futures)), STORED]
        assert await in_thread(publish.result) == await publish


async def test_task_of_publish_returns_receipts() -> None:
    publish, (future,) = pending()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(publish)
        future.set_result(STORED)
    assert task.result() == [STORED]


async def test_cancelled_task_does_not_cancel_the_publish() -> None:
    publish, (future,) = pending()
    task = asyncio.get_running_loop().create_task(publish)
    await asyncio.wait({task}, timeout=0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not future.cancelled()
    future.set_result(STORED)
    assert await publish == [STORED]


async def test_closed_coroutine_does_not_cancel_the_publish() -> None:
    publish, (future,) = pending()
    publish.close()
    publish.send(None)
    publish.close()
    future.set_result(STORED)
    assert await publish == [STORED]


async def test_throw_ends_only_the_wait() -> None:
    publish, (future,) = pending()
    publish.send(None)
    with pytest.raises(ValueError, match="stop"):
        publish.throw(ValueError("stop"))
    future.set_result(STORED)


async def test_failure_is_logged_unless_awaited(caplog: pytest.LogCaptureFixture) -> None:
    dropped, (first,) = pending()
    awaited, (second,) = pending()
    waiting = asyncio.get_running_loop().create_task(awaited)
    await asyncio.wait({waiting}, timeout=0)
    for future in (first, second):
        future.set_exception(BrokerUnavailable("away.", fix="wait"))
    with pytest.raises(BrokerUnavailable):
        await waiting
    assert [record.getMessage().partition(" [")[0] for record in caplog.records] == [
        "publish to 't' failed: away. Fix: wait"
    ]
    del dropped


async def test_result_waits_in_a_thread() -> None:
    publish, (future,) = pending()
    waiting = asyncio.get_running_loop().create_task(in_thread(publish.result))
    future.set_result(STORED)
    assert await waiting == [STORED]


async def test_result_raises_the_failure() -> None:
    publish, (future,) = pending()
    future.set_exception(BrokerUnavailable("away.", fix="wait"))
    with pytest.raises(BrokerUnavailable):
        await in_thread(publish.result)


async def test_result_has_a_time_limit() -> None:
    publish, (future,) = pending()
    with pytest.raises(TimeoutError, match="publish to 't' was not acknowledged within 0 s"):
        await in_thread(lambda: publish.result(timeout_s=0))
    future.set_result(STORED)


async def test_result_waits_for_readers_like_await() -> None:
    (future,) = pending()[1]
    future.set_result(STORED)
    began, read = asyncio.Event(), asyncio.Event()

    async def delivered() -> None:
        began.set()
        await read.wait()

    loop = asyncio.get_running_loop()
    publish = PendingPublish([future], "t", delivered=delivered, slow_loop=lambda: loop)
    waiting = loop.create_task(in_thread(publish.result))
    await began.wait()
    assert not waiting.done()
    read.set()
    assert await waiting == [STORED]


async def test_result_returns_receipts_when_readers_are_slow() -> None:
    stored: concurrent.futures.Future[Receipt] = concurrent.futures.Future()
    stored.set_result(STORED)
    read, ended = asyncio.Event(), asyncio.Event()

    async def delivered() -> None:
        await read.wait()
        ended.set()

    loop = asyncio.get_running_loop()
    publish = PendingPublish([stored], "t", delivered=delivered, slow_loop=lambda: loop)
    assert await in_thread(lambda: publish.result(timeout_s=0)) == [STORED]
    read.set()
    await ended.wait()


async def test_result_needs_no_readers_when_the_node_has_stopped() -> None:
    stored: concurrent.futures.Future[Receipt] = concurrent.futures.Future()
    stored.set_result(STORED)
    loop = asyncio.new_event_loop()
    loop.close()
    publish = PendingPublish([stored], "t", delivered=lambda: pytest.fail("it is called"), slow_loop=lambda: loop)
    assert await in_thread(publish.result) == [STORED]


async def test_result_in_an_event_loop_is_refused() -> None:
    publish, (future,) = pending()
    future.set_result(STORED)
    with pytest.raises(ConfigurationError, match="use `await` instead"):
        publish.result()


async def test_other_event_loop_may_await() -> None:
    publish, (future,) = pending()

    async def elsewhere() -> list[Receipt]:
        return await publish

    waiting = asyncio.get_running_loop().create_task(in_thread(lambda: asyncio.run(elsewhere())))
    future.set_result(STORED)
    assert await waiting == [STORED]


async def test_call_in_loop_runs_in_that_loop() -> None:
    loop, thread = asyncio.get_running_loop(), threading.current_thread()

    def make() -> list[asyncio.Future[Receipt]]:
        assert threading.current_thread() is thread
        future: asyncio.Future[Receipt] = loop.create_future()
        future.set_result(STORED)
        return [future]

    (future,) = await in_thread(lambda: call_in_loop(loop, 1, make))
    assert await asyncio.wrap_future(future) == STORED


async def test_call_in_loop_passes_errors_and_cancellations() -> None:
    loop = asyncio.get_running_loop()

    def cancelled() -> list[asyncio.Future[Receipt]]:
        future: asyncio.Future[Receipt] = loop.create_future()
        future.cancel()
        return [future]

    def failing() -> list[asyncio.Future[Receipt]]:
        raise ValueError("no")

    (first,), (second,) = call_in_loop(loop, 1, cancelled), call_in_loop(loop, 1, failing)
    with pytest.raises(BrokerClosed):
        await asyncio.wrap_future(first)
    with pytest.raises(ValueError, match="no"):
        await asyncio.wrap_future(second)


def test_call_in_closed_loop_is_refused() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(BrokerClosed, match="event loop of the node is closed"):
        call_in_loop(loop, 1, list)


def test_marked_method_is_a_coroutine_function() -> None:
    @acts_as_coroutine
    def method() -> Any: ...

    assert asyncio.iscoroutinefunction(method)
    assert inspect.iscoroutinefunction(method) or not hasattr(inspect, "markcoroutinefunction")
