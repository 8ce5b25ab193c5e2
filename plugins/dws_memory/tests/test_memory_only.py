"""Promises of the memory broker beyond the suite: exact gaps, bounded memory, several event loops, names."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import dws_memory
import pytest
from dws_memory import InMemoryBroker, MemoryBroker
from dws_memory import _log as log_module
from dws_memory import _node as node_module

from dws_core.plugin import (
    BrokerError,
    BrokerURL,
    GapReason,
    Head,
    History,
    InvalidBrokerURL,
    Layout,
    LayoutMismatch,
    PayloadTooLarge,
    ReadResult,
    ReadSpan,
    Receipt,
    Record,
)

pytestmark = pytest.mark.anyio

ONE = Layout(channel="chat")
HANG_S = 60.0
"""Seconds after which a wait is a failure."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Sink:
    """Stores every call. It raises if `fails` is set."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.records: list[Record] = []
        self.told: list[object] = []
        self.fails = False
        self.changed = asyncio.Event()

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Sequence[Record]) -> None:
        self.changed.set()
        if self.fails:
            raise RuntimeError("this sink is broken")
        self.ranges.append((lo, hi))
        self.records += records

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self.changed.set()
        self.told.append((partition, reason, head))

    def on_control(self, sender: bytes, payload: bytes) -> None:
        self.changed.set()
        self.told.append(payload)

    def on_state(self, state: str, detail: str) -> None:
        self.told.append(state)

    async def wait(self) -> None:
        await asyncio.wait_for(self.changed.wait(), HANG_S)
        self.changed.clear()


class Node:
    """A broker with its sink, which publishes to partition 0."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.sink = Sink()

    async def start(self, layout: Layout = ONE, *, node: bytes = b"12345678") -> Node:
        await self.broker.start(node=node, layout=layout, sink=self.sink)
        return self

    async def tail(self) -> Node:
        await self.broker.set_interest(frozenset({0}))
        return self

    async def publish(self, topic: str, size: int = 300, ttl_s: float = 600.0, **options: Any) -> Receipt:
        return await self.broker.publish(0, topic, b"x", history=History(size=size, ttl_s=ttl_s), **options)

    async def head(self) -> Head:
        return (await self.broker.heads([0]))[0]

    async def read(self, since: int, topics: Any, **limits: int) -> ReadResult:
        head = await self.head()
        limits = {"limit": 10_000, "max_bytes": 10**9, "until": head.offset, **limits}
        return await self.broker.read(ReadSpan(partition=0, since=since, epoch=head.epoch, topics=topics, **limits))

    async def gap(self, since: int, topics: Any, **limits: int) -> GapReason | None:
        result = await self.read(since, topics, **limits)
        assert not (result.gap and result.records), "never a part"
        return result.gap


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def node(clock: Clock) -> AsyncIterator[Node]:
    node = await Node(MemoryBroker(clock=clock)).start()
    yield node
    await node.broker.stop()


def everything(topic: str) -> bool:
    return True


# -- names


def test_original_name_works_without_arguments() -> None:
    assert InMemoryBroker is MemoryBroker
    assert InMemoryBroker().name == ""
    with pytest.raises(AttributeError, match="NoSuchBroker"):
        dws_memory.NoSuchBroker  # noqa: B018 -- it is the access that raises


def test_url_sets_log_name_and_options() -> None:
    broker = MemoryBroker.from_url(BrokerURL.parse("memory://lobby?max_payload_bytes=1KiB&key_ttl_s=2m"))
    assert broker.name == "lobby"
    assert broker.capabilities.max_payload_bytes == 1024
    assert MemoryBroker.capabilities.max_payload_bytes == 1_048_576
    assert repr(broker) == "<MemoryBroker memory://lobby stopped>"


@pytest.mark.parametrize("url", ["memory://a:1", "memory://a,b", "memory:///path", "memory://x?size=3"])
def test_url_with_unsupported_parts_is_rejected(url: str) -> None:
    with pytest.raises(InvalidBrokerURL, match="memory://"):
        MemoryBroker.from_url(BrokerURL.parse(url))


async def test_unnamed_brokers_share_no_log() -> None:
    a, b = await Node(MemoryBroker()).start(), await Node(MemoryBroker()).start()
    await a.publish("t")
    assert (await a.head()).epoch != (await b.head()).epoch
    assert (await b.head()).offset == 0
    await a.broker.stop()
    await b.broker.stop()


async def test_log_lives_as_long_as_its_brokers() -> None:
    """A log of a name ends with the last broker object of that name."""
    a = await Node(MemoryBroker("living")).start()
    first = await a.publish("t")
    await a.broker.stop()
    b = await Node(MemoryBroker("living")).start()
    assert (await b.head()).offset == first.offset, "a is stopped, not gone"
    await b.broker.stop()
    del a, b
    gc.collect()
    c = await Node(MemoryBroker("living")).start()
    assert (await c.head()).offset == 0
    assert (await c.head()).epoch != first.epoch
    await c.broker.stop()


async def test_broker_can_be_restarted_but_not_started_twice() -> None:
    node = await Node(MemoryBroker()).start()
    first = await node.publish("t")
    with pytest.raises(BrokerError, match="already started"):
        await node.start()
    await node.broker.stop()
    await node.start()
    assert (await node.publish("t")).offset == (first.offset or 0) + 1
    await node.broker.stop()


async def test_different_shard_levels_are_rejected() -> None:
    a = await Node(MemoryBroker("levels")).start(Layout(channel="chat", partitions=4))
    with pytest.raises(LayoutMismatch, match="shard_levels=1"):
        await Node(MemoryBroker("levels")).start(Layout(channel="chat", partitions=4, shard_levels=1))
    await a.broker.stop()


async def test_payload_limit_of_url_applies() -> None:
    node = await Node(MemoryBroker(max_payload_bytes=2)).start()
    with pytest.raises(PayloadTooLarge, match="limit of 2 bytes"):
        await node.broker.publish(0, "t", b"123", history=History())
    await node.broker.stop()


# -- delivery


async def test_publishes_of_one_tick_are_one_call(node: Node) -> None:
    await node.tail()
    for _ in range(100):
        node.broker.publish(0, "t", b"x", history=History())
    assert node.sink.ranges == []
    await node.sink.wait()
    assert node.sink.ranges == [(0, 100)]


async def test_publish_completes_at_once(node: Node) -> None:
    assert node.broker.publish(0, "t", b"x", history=History()).done()


async def test_publishing_loop_lets_readers_run(node: Node) -> None:
    await node.tail()
    while not node.sink.records:
        await node.publish("t")
    assert len(node.sink.records) <= 256


async def test_failing_sink_is_reported_and_affects_no_other() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    bad, good = Node(MemoryBroker("sinks")), Node(MemoryBroker("sinks"))
    for node in (bad, good):
        await (await node.start(Layout(channel="c", partitions=2))).broker.set_interest(frozenset({0, 1}))
    bad.sink.fails = True
    await bad.broker.publish(0, "t", b"x", history=History())
    await bad.broker.publish(1, "t", b"y", history=History())
    await good.broker.send_control(b"control")
    await good.sink.wait()
    assert [record.payload for record in good.sink.records] == [b"x", b"y"]
    assert [str(context["exception"]) for context in reported] == ["this sink is broken"] * 2
    await bad.sink.wait()
    assert bad.sink.told == ["live", b"control"]
    bad.sink.fails = False
    await good.broker.publish(0, "t", b"z", history=History())
    await bad.sink.wait()
    assert bad.sink.ranges == [(1, 2)], "it goes on behind what it failed to take"
    await bad.broker.stop()
    await good.broker.stop()


async def test_smaller_interest_keeps_other_positions() -> None:
    node = await Node(MemoryBroker()).start(Layout(channel="c", partitions=2))
    await node.broker.set_interest(frozenset({0, 1}))
    for partition in (0, 1):
        node.broker.publish(partition, "t", b"x", history=History())
    heads = await node.broker.set_interest(frozenset({1}))
    assert {p: h.offset for p, h in heads.items()} == {1: 0}, "the sink has not heard of it yet"
    await node.sink.wait()
    assert [record.payload for record in node.sink.records] == [b"x"]
    await node.broker.stop()


async def test_stop_delivers_pending_records(node: Node) -> None:
    await node.tail()
    await node.publish("t")
    await node.broker.stop()
    assert node.sink.ranges == [(0, 1)]
    assert node.sink.told == ["live", "closed"]


async def test_stalled_node_receives_gap(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gap replaces the pending records, so that they do not fill the memory."""
    monkeypatch.setattr(node_module, "_MAX_PENDING", 10)
    await node.tail()
    for _ in range(12):
        node.broker.publish(0, "t", b"x", history=History())
    await node.sink.wait()
    head = await node.head()
    assert node.sink.told == ["live", (0, GapReason.TRIMMED, head)]
    assert node.sink.records == []
    await node.publish("t")
    await node.sink.wait()
    assert node.sink.ranges == [(12, 13)]


def in_a_thread(job: Callable[[], Awaitable[None]]) -> threading.Thread:
    thread = threading.Thread(target=lambda: asyncio.run(job()))  # type: ignore[arg-type]  # a coroutine
    thread.start()
    return thread


async def test_nodes_on_several_loops_see_one_order() -> None:
    orders: list[list[bytes]] = []
    ready = threading.Barrier(3)

    async def take_part(name: bytes) -> None:
        node = await (await Node(MemoryBroker("loops")).start(node=name * 8)).tail()
        await asyncio.to_thread(ready.wait, 10)
        for number in range(300):
            await node.broker.publish(0, "t", name + b"%d" % number, history=History())
        while len(node.sink.records) < 900:
            await node.sink.wait()
        await node.broker.send_control(b"bye")
        while node.sink.told.count(b"bye") < 3:
            await node.sink.wait()
        orders.append([record.payload for record in node.sink.records])
        await asyncio.to_thread(ready.wait, 10)
        await node.broker.stop()

    threads = [in_a_thread(lambda name=name: take_part(name)) for name in (b"b", b"c")]  # type: ignore[misc]
    await take_part(b"a")
    for thread in threads:
        thread.join(10)
    assert len(orders) == 3
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == sorted(name + b"%d" % n for name in (b"a", b"b", b"c") for n in range(300))


async def test_node_of_closed_loop_is_removed() -> None:
    alive = await (await Node(MemoryBroker("closed")).start()).tail()
    dead = Node(MemoryBroker("closed"))

    async def leave_without_stopping() -> None:
        await (await dead.start()).tail()

    in_a_thread(leave_without_stopping).join(10)
    await alive.publish("t")
    await alive.broker.send_control(b"x")
    await alive.sink.wait()
    assert len(alive.sink.records) == 1
    log = alive.broker._log
    assert log is not None
    assert len(log.nodes) == len(log.partitions[0].readers) == 1
    await alive.broker.stop()


# -- history: exact answers, bounded memory


async def test_history_size_is_exact(node: Node) -> None:
    for _ in range(10):
        await node.publish("t", size=3)
    assert [r.offset for r in (await node.read(7, ["t"])).records] == [8, 9, 10]
    assert await node.gap(6, ["t"]) is GapReason.TRIMMED
    assert [r.prev for r in (await node.read(7, ["t"])).records] == [7, 8, 9]


async def test_quiet_topic_is_complete_next_to_busy_one(node: Node) -> None:
    await node.publish("quiet")
    for _ in range(1000):
        await node.publish("busy", size=2)
    assert [r.offset for r in (await node.read(0, ["quiet", "never"])).records] == [1]
    assert await node.gap(1, ["quiet", "never"]) is None
    assert await node.gap(1, everything) is GapReason.TRIMMED
    assert [r.offset for r in (await node.read(999, everything)).records] == [1000, 1001]


async def test_expired_records_are_exact_gap(node: Node, clock: Clock) -> None:
    await node.publish("t", ttl_s=10)
    clock.now += 9
    await node.publish("t", ttl_s=10)
    assert len((await node.read(0, ["t"])).records) == 2
    clock.now += 1
    assert await node.gap(0, ["t"]) is GapReason.TRIMMED
    assert [r.offset for r in (await node.read(1, ["t"])).records] == [2]
    clock.now += 9
    assert await node.gap(1, ["t"]) is GapReason.TRIMMED
    assert await node.gap(2, ["t"]) is None
    assert await node.gap(1, everything) is GapReason.TRIMMED
    assert await node.gap(2, everything) is None
    assert (await node.publish("t")).offset == 3
    assert [r.prev for r in (await node.read(2, ["t"])).records] == [2]


async def test_read_respects_topics_range_and_limits(node: Node) -> None:
    for topic in ("a", "b", "a", "c", "a"):
        await node.publish(topic)
    assert [r.offset for r in (await node.read(0, ["a", "c"], until=4)).records] == [1, 3, 4]
    assert [r.offset for r in (await node.read(1, lambda topic: topic != "a")).records] == [2, 4]
    assert await node.read(4, ["a"], until=4) == ReadResult()
    assert await node.gap(0, ["a"], limit=2) is GapReason.TOO_MANY
    assert await node.gap(0, ["a"], limit=3) is None
    assert await node.gap(0, ["a"], max_bytes=2) is GapReason.TOO_MANY
    assert await node.gap(6, ["a"]) is GapReason.AHEAD
    foreign = await node.broker.read(
        ReadSpan(partition=0, since=0, until=5, epoch="0", topics=["a"], limit=9, max_bytes=9)
    )
    assert foreign.gap is GapReason.EPOCH


async def test_memory_is_proportional_to_stored_records(
    node: Node, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_MAX_EMPTY_TOPICS", 50)
    await node.publish("long-lived", ttl_s=1e6)
    for number in range(5000):
        clock.now += 0.1
        await node.publish(f"t/{number}", ttl_s=1)
        await node.publish("e", size=0, key=f"k{number}")
    partition = node.broker._log.partitions[0]  # type: ignore[union-attr]  # it is started
    assert len(partition._topics) <= 12
    assert len(partition._due) == len(partition._topics)
    assert len(partition._empty_topics) == 50
    assert len(partition._receipts) <= 601, "keys of 60 seconds"
    last = (await node.head()).offset
    assert await node.gap(last - 5, everything) is None
    assert await node.gap(last - 5, ["never"]) is None, "the floor is behind it"
    assert await node.gap(last - 100, ["never"]) is GapReason.TRIMMED, "it may have been one of the forgotten"
    assert [r.offset for r in (await node.read(0, ["long-lived"])).records] == [1]
    await node.publish("never")
    assert (await node.read(last, ["never"])).records[0].prev == partition._floor


async def test_topic_lives_until_its_last_record_expires(node: Node, clock: Clock) -> None:
    await node.publish("t", ttl_s=10)
    clock.now += 5
    await node.publish("t", ttl_s=10)
    clock.now += 6
    await node.publish("other")
    assert [r.offset for r in (await node.read(1, ["t"])).records] == [2]


async def test_key_applies_within_its_window_only(clock: Clock) -> None:
    node = await Node(MemoryBroker(key_ttl_s=60, clock=clock)).start()
    first = await node.publish("t", key="k")
    clock.now += 59
    again = await node.publish("t", key="k")
    assert (again.offset, again.duplicate) == (first.offset, True)
    clock.now += 1
    later = await node.publish("t", key="k")
    assert (later.offset, later.duplicate) == (2, False)
    await node.broker.stop()


async def test_cancelled_future_of_next_tick_is_harmless(node: Node) -> None:
    futures = [node.broker.publish(0, "t", b"x", history=History()) for _ in range(256)]
    assert not futures[-1].done()
    futures[-1].cancel()
    await asyncio.sleep(0)
    assert (await node.publish("t")).offset == 257
