"""Reads of recovering connections during an outage: all wait, and one read serves them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from support.timeouts import HANG_S

from dws_core._errors import BrokerUnavailable
from dws_core._log.records import Head, ReadResult, ReadSpan
from dws_core._node.pacing import Pacer
from dws_core._node.recovery.attempts import Attempts
from dws_core._node.recovery.shared_reads import SharedReads
from dws_core._tasks import Tasks


class Broker:
    """A broker that counts its calls, and fails while it is away."""

    def __init__(self) -> None:
        self.away = True
        self.reads: list[ReadSpan] = []
        self.asked: list[Collection[int]] = []
        self.asking = asyncio.Event()

    async def read(self, span: ReadSpan) -> ReadResult:
        self.reads.append(span)
        await asyncio.sleep(0)
        self._check()
        return ReadResult()

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        self.asked.append(partitions)
        self.asking.set()
        await asyncio.sleep(0)
        self._check()
        return {number: Head(partition=number, epoch="e", offset=7) for number in partitions}

    def _check(self) -> None:
        if self.away:
            raise BrokerUnavailable("away")


@asynccontextmanager
async def reading() -> AsyncIterator[tuple[Broker, SharedReads, Attempts]]:
    broker, tasks, attempts = Broker(), Tasks(), Attempts(retry_s=HANG_S)
    try:
        yield broker, SharedReads(cast("Any", broker), tasks, Pacer(), attempts), attempts
    finally:
        await tasks.stop()


def span(partition: int = 0, since: int = 0) -> ReadSpan:
    return ReadSpan(
        partition=partition, epoch="e", since=since, until=9, topics=frozenset("t"), limit=10, max_bytes=1_000
    )


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_thousand_waiting_reads_cost_one_read() -> None:
    async with reading() as (broker, reads, attempts), asyncio.timeout(HANG_S):
        first = asyncio.get_running_loop().create_task(reads.read(span()))
        await _settle()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(reads.read(span(since=number % 9))) for number in range(1_000)]
            await _settle()
            assert len(broker.reads) == 1, "they wait for the state, they do not try"
            broker.away = False
            attempts.on_state()
        assert {task.result() for task in (first, *waiting)} == {ReadResult()}
        assert len(broker.reads) == 2


async def test_each_partition_is_retried_once() -> None:
    async with reading() as (broker, reads, attempts), asyncio.timeout(HANG_S):
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(reads.read(span(number % 3)))
            await _settle()
            broker.reads.clear()
            broker.away = False
            attempts.on_state()
        assert sorted(read.partition for read in broker.reads) == [0, 1, 2]


async def test_read_that_nobody_awaits_is_not_repeated() -> None:
    async with reading() as (broker, reads, attempts):
        tasks = [asyncio.get_running_loop().create_task(reads.read(span())) for _ in range(2)]
        await _settle()
        for task in tasks:
            task.cancel()
        await _settle()
        attempts.on_state()
        await _settle()
        assert len(broker.reads) == 1


async def test_waiting_heads_are_asked_once() -> None:
    async with reading() as (broker, reads, attempts), asyncio.timeout(HANG_S):
        gone = asyncio.get_running_loop().create_task(reads.heads({5}))
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(reads.heads({number % 3})) for number in range(100)]
            await _settle()
            gone.cancel()
            await _settle()
            broker.asked.clear()
            broker.away = False
            attempts.on_state()
        assert {head.offset for task in waiting for head in task.result().values()} == {7}
        assert broker.asked == [frozenset({0, 1, 2})]


async def test_heads_are_asked_after_request() -> None:
    """An end that was read before could be older than the client's cursor."""
    async with reading() as (broker, reads, _), asyncio.timeout(HANG_S):
        broker.away = False
        first = asyncio.get_running_loop().create_task(reads.heads({0}))
        await broker.asking.wait()
        await reads.heads({0})
        await first
        assert len(broker.asked) == 2
