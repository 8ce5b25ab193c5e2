"""What only the Kafka broker does."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from aiokafka import AIOKafkaProducer
from dws_kafka import KafkaBroker
from dws_kafka._clients import Clients, wire_errors
from services.kafka import PrivateKafka
from support.broker_load import HISTORY, IgnoringSink, Node
from support.kafka_admin import admin
from support.kafka_proxy import KafkaProxy

from dws_core import create_broker
from dws_core.__main__ import examine
from dws_core._plugins.registry import default_registry
from dws_core.plugin import (
    BrokerClosed,
    BrokerUnavailable,
    GapReason,
    Layout,
    PublishOutcomeUnknown,
    ReadSpan,
    WireLost,
)


def layout(partitions: int = 2) -> Layout:
    return Layout(channel=f"only-{secrets.token_hex(4)}", partitions=partitions)


@pytest.fixture
async def node(kafka: PrivateKafka, proxy: KafkaProxy) -> AsyncIterator[Node]:
    node = Node(kafka.url + "?partitions=2", layout(), 1)
    await node.start()
    yield node
    await node.broker.stop()


@pytest.mark.anyio
async def test_idle_node_stays_within_promised_rate(kafka: PrivateKafka, proxy: KafkaProxy) -> None:
    """Measured with the default options, until each partition was probed several times."""
    heartbeats: deque[int] = deque()
    enough = asyncio.Event()

    class Sink(IgnoringSink):
        def on_records(self, partition: int, *_: Any) -> None:
            heartbeats.append(partition)
            if len(heartbeats) >= 32:
                enough.set()

    broker = create_broker(kafka.url)
    await broker.start(node=secrets.token_bytes(8), layout=layout(8), sink=Sink())
    try:
        await broker.set_interest(frozenset(range(8)))
        before, began = proxy.requests, time.monotonic()
        await enough.wait()
        assert (proxy.requests - before) / (time.monotonic() - began) <= KafkaBroker.capabilities.idle_ops_per_s
    finally:
        await broker.stop()


@pytest.mark.anyio
async def test_foreign_record_is_gap_and_nothing_more(kafka: PrivateKafka, node: Node) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.address)
    await producer.start()
    await producer.send_and_wait(f"dws.{node.layout.channel}", b"hello", partition=0)
    await producer.send_and_wait(f"dws.{node.layout.channel}", None, key=b"tombstone", partition=0)
    await producer.stop()
    await node.until(lambda: len(node.losses) == 2)
    await node.broker.publish(0, "t", b"after", history=HISTORY)
    await node.until(lambda: [payload for _, payload in node.received[0]] == [b"after"])
    assert set(node.losses) == {GapReason.TRIMMED}


@pytest.mark.anyio
async def test_compressed_messages_are_read(kafka: PrivateKafka, proxy: KafkaProxy) -> None:
    writer = Node(kafka.url + "?partitions=2&compression=gzip", at := layout(), 1)
    reader = Node(kafka.url + "?partitions=2", at, 2)
    for each in (writer, reader):
        await each.start()
    try:
        await writer.broker.publish(1, "t", b"x" * 1_000_000, history=HISTORY)
        await reader.until(lambda: [len(payload) for _, payload in reader.received[1]] == [1_000_000])
    finally:
        for each in (writer, reader):
            await each.broker.stop()


@pytest.mark.anyio
async def test_reads_at_the_same_time_share_few_connections(node: Node) -> None:
    """A read takes a free consumer, and gives it back also if it stops early."""
    receipts = [await node.broker.publish(0, "t", b"%d" % number, history=HISTORY) for number in range(10)]
    span = ReadSpan(
        partition=0,
        epoch=receipts[0].epoch,
        since=receipts[0].offset or 0,
        until=receipts[-1].offset or 0,
        topics=["t"],
        limit=100,
        max_bytes=1_000_000,
    )
    for _ in range(3):
        found = await asyncio.gather(*(node.broker.read(span) for _ in range(3)))
        assert all([record.payload for record in each.records] == [b"%d" % n for n in range(1, 10)] for each in found)
    wire: Any = node.broker._node._session.wire  # type: ignore[union-attr]
    assert len(wire._scanners) <= 8


@pytest.mark.anyio
async def test_unreachable_kafka_is_named_with_cause() -> None:
    broker = create_broker("kafka://127.0.0.1:1")
    with pytest.raises(BrokerUnavailable, match=r"kafka://127.0.0.1:1.*(refused|Connect call failed)"):
        await broker.start(node=secrets.token_bytes(8), layout=layout(), sink=IgnoringSink())  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_frozen_kafka_does_not_delay_the_end(kafka: PrivateKafka, proxy: KafkaProxy) -> None:
    """Neither the end of a node with megabytes on their way, nor that of a node that is starting."""
    before = asyncio.all_tasks()
    node = Node(kafka.url + "?partitions=2&dead_s=60s", at := layout(), 1)
    await node.start()
    starting = create_broker(kafka.url + "?partitions=2")
    await asyncio.to_thread(kafka.freeze)
    try:
        sent = [node.broker.publish(n % 2, "t", b"x" * 500_000, history=HISTORY) for n in range(40)]
        task = asyncio.get_running_loop().create_task(
            starting.start(node=secrets.token_bytes(8), layout=at, sink=IgnoringSink())  # type: ignore[arg-type]
        )
        for _ in range(100):  # turns of the event loop, in which it begins to connect
            await asyncio.sleep(0)
        began = time.monotonic()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await node.broker.stop(drain_s=0)
        assert time.monotonic() - began < 10, "a request times out after 3 seconds, and there are many"
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {BrokerClosed, PublishOutcomeUnknown}
    finally:
        await asyncio.to_thread(kafka.thaw)
    assert asyncio.all_tasks() - before == set()


@pytest.mark.anyio
async def test_doctor_leaves_one_channel(
    kafka: PrivateKafka, proxy: KafkaProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert await examine(kafka.url, default_registry()) == 0, capsys.readouterr().out
    async with admin(kafka.address) as client:
        topics = [name for name in await client.list_topics() if "doctor" in name]
    assert sorted(topics) == ["dws.dws-doctor"]


@pytest.mark.anyio
async def test_new_leader_ends_clients() -> None:
    """aiokafka reports metadata before it sends a request to the new leader."""

    class Cluster:
        leaders: ClassVar = {0: 1, 1: 2}

        def partitions_for_topic(self, topic: str) -> set[int] | None:
            return set(self.leaders) if topic == "t" else None

        def leader_for_partition(self, place: Any) -> int:
            return self.leaders[place.partition]

    cluster, clients = Cluster(), Clients({}, "t", 1.0)
    clients._on_metadata(cluster)
    clients._on_metadata(cluster)
    clients.check()
    cluster.leaders = {0: 1, 1: 3}
    clients._on_metadata(cluster)
    with pytest.raises(WireLost, match="partition 1 of t has another leader") as found:
        clients.check()
    assert not found.value.sent


@pytest.mark.anyio
async def test_cancellation_by_aiokafka_is_lost_connection() -> None:
    """The rule is that a real cancellation passes."""
    with pytest.raises(WireLost), wire_errors():
        raise asyncio.CancelledError

    async def wait() -> None:
        with wire_errors():
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
