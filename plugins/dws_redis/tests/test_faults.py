"""A Redis that is cut off, frozen, killed, set back under load: what it acknowledged comes once, in order, or a gap is told."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from dws_redis import RedisBroker
from services.redis import PrivateRedis

from dws_core.plugin import (
    BrokerError,
    BrokerURL,
    GapReason,
    Head,
    History,
    Layout,
    PublishOutcomeUnknown,
    Receipt,
    Record,
)

HANG_S = 20.0
LAYOUT = Layout(channel="faults", partitions=2)
KEPT = History(size=100_000, ttl_s=600)


class Node:
    """One broker and all that its node is told."""

    def __init__(self, redis: PrivateRedis, number: int) -> None:
        self.broker = RedisBroker.from_url(
            BrokerURL.parse(redis.url + "?probe_s=200ms&dead_s=800ms&trust_restart=always")
        )
        self.heard: dict[int, list[tuple[int | None, bytes]]] = {0: [], 1: []}
        self.losses: list[GapReason] = []
        self.whole_since = {0: 0, 1: 0}  # what was heard before the last gap
        self.states: list[str] = []
        self.changed = asyncio.Event()
        self._id = bytes([number]) * 8

    async def start(self) -> None:
        await self.broker.start(node=self._id, layout=LAYOUT, sink=self)
        await self.broker.set_interest(frozenset({0, 1}))

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: list[Record]) -> None:
        self.heard[partition] += [(record.offset, record.payload) for record in records]
        self.changed.set()

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self.losses.append(reason)
        self.whole_since[partition] = len(self.heard[partition])
        self.changed.set()

    def on_control(self, sender: bytes, payload: bytes) -> None:
        """Nobody sends any."""

    def on_state(self, state: str, detail: str) -> None:
        self.states.append(state)
        self.changed.set()

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not happened():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def two_nodes(redis: PrivateRedis) -> AsyncIterator[tuple[Node, Node]]:
    nodes = Node(redis, 1), Node(redis, 2)
    for node in nodes:
        await node.start()
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.broker.stop(drain_s=0.1)


@pytest.fixture
def with_aof() -> Iterator[PrivateRedis]:
    server = PrivateRedis(aof=True)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def without_aof() -> Iterator[PrivateRedis]:
    server = PrivateRedis()
    server.start()
    yield server
    server.remove()


class Load:
    """Publishes numbers on both partitions until it is told to stop."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.acked: dict[int, list[bytes]] = {0: [], 1: []}
        self.unknown: set[bytes] = set()
        self.refused = 0
        self.stopping = False
        self.progress = asyncio.Event()

    async def run(self, partition: int) -> None:
        number = 0
        while not self.stopping:
            payloads = [b"%d-%d" % (partition, number + n) for n in range(20)]
            number += 20
            futures = [
                self._node.broker.publish(partition, f"t/{partition}", payload, history=KEPT, deadline_s=HANG_S)
                for payload in payloads
            ]
            for payload, answer in zip(payloads, await asyncio.gather(*futures, return_exceptions=True), strict=True):
                self._count(partition, payload, answer)

    def _count(self, partition: int, payload: bytes, answer: Receipt | BaseException) -> None:
        if isinstance(answer, Receipt):
            self.acked[partition].append(payload)
        elif isinstance(answer, PublishOutcomeUnknown):
            self.unknown.add(payload)
        elif isinstance(answer, BrokerError):
            self.refused += 1
        else:
            raise answer
        self.progress.set()

    async def more(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        goal = sum(map(len, self.acked.values())) + count
        async with asyncio.timeout(HANG_S):
            while sum(map(len, self.acked.values())) < goal:
                self.progress.clear()
                await self.progress.wait()


async def under_load(redis: PrivateRedis, trouble: Callable[[Load], Awaitable[None]]) -> tuple[Load, Node]:
    """Let one node publish and the other listen while there is trouble; return when all is calm and everything has come."""
    async with two_nodes(redis) as (sender, listener):
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.more(200)
            await trouble(load)
            await load.more(200)
            load.stopping = True
        await everything_came(sender, listener)
        return load, listener


async def everything_came(sender: Node, listener: Node) -> None:
    """Publish ends until the listener hears one: what comes before a gap is told is nobody's."""
    for partition in (0, 1):
        for number in range(100):
            end = b"end %d" % number
            await sender.broker.publish(partition, "end", end, history=KEPT)
            try:
                async with asyncio.timeout(0.5):
                    await listener.until(lambda p=partition, e=end: any(heard == e for _, heard in listener.heard[p]))
            except TimeoutError:
                continue
            break
        else:
            raise AssertionError("no end was heard")


def messages(listener: Node, partition: int) -> list[bytes]:
    """Return what was heard of the load."""
    return [payload for _, payload in listener.heard[partition] if not payload.startswith(b"end")]


def check(load: Load, listener: Node) -> None:
    """Nothing that was acknowledged is missing, nothing came twice, all in order."""
    for partition in (0, 1):
        heard = messages(listener, partition)
        offsets = [offset or 0 for offset, _ in listener.heard[partition]]
        assert offsets == sorted(set(offsets)), "in order, each place once"
        assert len(heard) == len(set(heard)), "nothing twice"
        assert [payload for payload in heard if payload not in load.unknown] == load.acked[partition], "nothing missing"


async def kill_tails(redis: PrivateRedis, load: Load) -> None:
    for _ in range(5):
        redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        await load.more(100)


async def kill_commands(redis: PrivateRedis, load: Load) -> None:
    for _ in range(5):
        redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await load.more(100)


async def kill_all(redis: PrivateRedis, load: Load) -> None:
    for _ in range(5):
        redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        await load.more(100)


async def kill_9(redis: PrivateRedis, load: Load) -> None:
    for _ in range(2):
        redis.kill()
        redis.start()
        await load.more(100)


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", [kill_tails, kill_commands, kill_all, kill_9])
async def test_nothing_is_lost_repeated_or_out_of_order(
    with_aof: PrivateRedis, trouble: Callable[[PrivateRedis, Load], Awaitable[None]]
) -> None:
    load, listener = await under_load(with_aof, lambda load: trouble(with_aof, load))
    check(load, listener)
    assert listener.losses == [], "and nothing was said to be lost"
    assert (load.unknown, load.refused) == (set(), 0), "every publish was repeated until it was answered"


@pytest.mark.anyio
async def test_a_frozen_redis_is_noticed_and_costs_nothing(with_aof: PrivateRedis) -> None:
    async with two_nodes(with_aof) as (sender, listener):
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.more(200)
            with_aof.freeze()
            try:
                await listener.until(lambda: listener.states[-1] == "degraded")
            finally:
                with_aof.thaw()
            await load.more(200)
            load.stopping = True
        await everything_came(sender, listener)
        check(load, listener)
        assert listener.losses == []
        await listener.until(lambda: listener.states[-1] == "live")


@pytest.mark.anyio
async def test_a_redis_that_lost_everything_is_announced_as_another_epoch(without_aof: PrivateRedis) -> None:
    load, listener = await under_load(without_aof, lambda load: kill_9(without_aof, load))
    assert set(listener.losses) == {GapReason.EPOCH}
    for partition in (0, 1):
        heard = messages(listener, partition)
        assert len(heard) == len(set(heard)), "nothing twice"
        whole = [payload for _, payload in listener.heard[partition][listener.whole_since[partition] :]]
        whole = [payload for payload in whole if not payload.startswith(b"end")]
        assert whole == load.acked[partition][len(load.acked[partition]) - len(whole) :], (
            "after the last gap all is whole"
        )


@pytest.mark.anyio
async def test_a_redis_that_is_set_back_to_an_older_state_is_announced(without_aof: PrivateRedis) -> None:
    """Without a new epoch, its offsets would be given out a second time, and clients would miss what took them first."""
    redis = without_aof

    async def set_back(load: Load) -> None:
        assert b"OK" in redis.command("SAVE")
        shutil.copy(redis.folder / "dump.rdb", redis.folder / "older.rdb")
        await load.more(300)
        redis.kill()
        shutil.copy(redis.folder / "older.rdb", redis.folder / "dump.rdb")
        redis.start()

    _, listener = await under_load(redis, set_back)
    assert listener.losses, "it is said"
    assert set(listener.losses) <= {GapReason.EPOCH, GapReason.AHEAD}


@pytest.mark.anyio
async def test_a_node_that_reads_too_slowly_is_cut_off_by_redis_and_catches_up() -> None:
    redis = PrivateRedis(**{"client-output-buffer-limit": "pubsub 256kb 0 0"})
    redis.start()
    try:
        async with two_nodes(redis) as (sender, listener):
            wire = listener.broker._node._holder(0).tail._subscription._wire  # type: ignore[union-attr]
            wire._transport.pause_reading()  # type: ignore[union-attr, attr-defined]
            payloads = [b"%d " % number + b"x" * 20_000 for number in range(600)]
            futures = [sender.broker.publish(0, "t", payload, history=KEPT) for payload in payloads]
            await asyncio.gather(*futures)
            await listener.until(lambda: len(listener.heard[0]) == len(payloads))
            assert [payload for _, payload in listener.heard[0]] == payloads
            assert listener.losses == []
            assert "degraded" in listener.states
    finally:
        redis.remove()
