"""Appends of one partition, on a producer that a test controls."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from dws_kafka._appends import Appends
from dws_kafka._clients import Clients

from dws_core.plugin import WireLost, WireRefused

ROOM = 3


class Batch:
    """A batch with room for three records."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def append(self, *, timestamp: None, key: None, value: bytes) -> object:
        if len(self.values) == ROOM:
            return None
        self.values.append(value)
        return self

    def close(self) -> None:
        """Accept the call."""


class Producer:
    """A producer whose batches get their outcomes from the test."""

    create_batch = Batch

    def __init__(self) -> None:
        self.sent: list[list[bytes]] = []
        self.pending: asyncio.Queue[asyncio.Future[Any]] = asyncio.Queue()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[Any]:
        self.sent.append(batch.values)
        self.pending.put_nowait(future := asyncio.get_running_loop().create_future())
        return future

    async def store(self, offset: int) -> None:
        """Store the batch in flight."""
        (await self.pending.get()).set_result(SimpleNamespace(offset=offset))

    async def fail(self, error: Exception) -> None:
        """Refuse the batch in flight."""
        (await self.pending.get()).set_exception(error)


class Lab:
    """A partition and the outcomes of its appends."""

    def __init__(self, timeout_s: float = 60.0) -> None:
        self.producer = Producer()
        self.clients = Clients({}, "t", 1.0)
        self.appends = Appends(self.clients, self.producer, "t", 0)  # type: ignore[arg-type]
        self._timeout_s = timeout_s

    def append(self, *data: bytes) -> list[asyncio.Task[int]]:
        loop = asyncio.get_running_loop()
        return [loop.create_task(self.appends.append(each, self._timeout_s)) for each in data]


async def outcomes(tasks: list[asyncio.Task[int]]) -> list[Any]:
    found = await asyncio.gather(*tasks, return_exceptions=True)
    return [each.sent if isinstance(each, WireLost) else each for each in found]


@pytest.mark.anyio
async def test_appends_during_a_batch_form_the_next_one() -> None:
    lab = Lab()
    tasks = lab.append(b"a", b"b", b"c", b"d", b"e")
    for offset in (7, 8, 11):
        await lab.producer.store(offset)
    assert lab.producer.sent == [[b"a"], [b"b", b"c", b"d"], [b"e"]]
    assert await outcomes(tasks) == [7, 8, 9, 10, 11]


@pytest.mark.anyio
async def test_failure_ends_all_later_appends_unsent() -> None:
    lab = Lab()
    tasks = lab.append(b"a", b"b", b"c")
    await lab.producer.fail(KafkaConnectionError("broken"))
    assert await outcomes(tasks) == [True, False, False]
    assert await outcomes(lab.append(b"d")) == [False]
    assert lab.producer.sent == [[b"a"]], "nothing follows a failure"
    assert lab.clients.lost.result() == "KafkaConnectionError: broken"


@pytest.mark.anyio
async def test_lost_clients_end_append_in_flight() -> None:
    lab = Lab()
    tasks = lab.append(b"a", b"b")
    await lab.producer.pending.get()
    lab.clients.lose("another leader")
    assert await outcomes(tasks) == [True, False]


@pytest.mark.anyio
async def test_append_without_reply_is_unknown() -> None:
    lab = Lab(timeout_s=0.01)
    assert await outcomes(lab.append(b"a", b"b")) == [True, False]
    assert lab.producer.sent == [[b"a"]]
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))
    await lab.producer.fail(KafkaConnectionError("later"))
    lab.producer = None  # type: ignore[assignment]
    await asyncio.sleep(0)
    gc.collect()
    assert reports == []


@pytest.mark.anyio
async def test_refused_append_does_not_end_others() -> None:
    lab = Lab()
    tasks = lab.append(b"big", b"b")
    await lab.producer.fail(MessageSizeTooLargeError("too large"))
    await lab.producer.store(5)
    found = await outcomes(tasks)
    assert isinstance(found[0], WireRefused)
    assert found[1] == 5


@pytest.mark.anyio
async def test_refused_batch_of_several_is_not_stored() -> None:
    """It is not known which one is too large. The base class sends them again, one at a time."""
    lab = Lab()
    tasks = lab.append(b"a", b"b", b"c")
    await lab.producer.store(1)
    await lab.producer.fail(MessageSizeTooLargeError("too large"))
    assert await outcomes(tasks) == [1, False, False]


@pytest.mark.anyio
async def test_append_without_permission_is_not_stored() -> None:
    lab = Lab()
    tasks = lab.append(b"a")
    await lab.producer.fail(TopicAuthorizationFailedError("t"))
    assert await outcomes(tasks) == [False]
    assert "may not write to topic t" in lab.clients.lost.result()


@pytest.mark.anyio
async def test_refusal_after_broken_connection_is_unknown() -> None:
    """aiokafka has sent the batch again, and the first attempt may be stored."""
    lab = Lab()
    tasks = lab.append(b"a")
    future = await lab.producer.pending.get()
    lab.clients.lose("broken")
    future.set_exception(MessageSizeTooLargeError("too large"))
    assert await outcomes(tasks) == [True]


@pytest.mark.anyio
async def test_cancelled_append_ends_the_wire() -> None:
    lab = Lab()
    (task,) = lab.append(b"a")
    await lab.producer.pending.get()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await outcomes(lab.append(b"b")) == [False]
