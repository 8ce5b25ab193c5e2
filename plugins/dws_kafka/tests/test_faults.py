"""Faults of a Kafka under load: every acknowledged message arrives once and in order, or a gap is reported."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing

import pytest
from dws_kafka._wire import KafkaWire
from integration.test_roaming import new_seed
from services.kafka import PrivateKafka
from support.broker_load import HISTORY, Load, Node, check, check_after_last_gap, two_nodes, wait_for_end
from support.kafka_admin import create_topic, delete_records, delete_topic
from support.kafka_proxy import KafkaProxy

from dws_core.plugin import GapReason, Layout, ReadResult, ReadSpan, Start

Trouble = Callable[[PrivateKafka, KafkaProxy, Load], Awaitable[None]]


def near(kafka: PrivateKafka) -> AbstractAsyncContextManager[tuple[Node, Node]]:
    """Start two nodes on a new channel that notice faults quickly."""
    layout = Layout(channel=f"faults-{secrets.token_hex(4)}", partitions=2)
    return two_nodes(kafka.url + "?probe_s=200ms&dead_s=2s", layout)


async def under_load(kafka: PrivateKafka, trouble: Callable[[Load], Awaitable[None]]) -> tuple[Load, Node]:
    """Publish on one node and listen on the other during a fault. Return when all messages have arrived."""
    async with near(kafka) as (sender, listener):
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.wait_for_acks(200)
            await trouble(load)
            await load.wait_for_acks(200)
            load.stopping = True
        await wait_for_end(sender, listener)
        return load, listener


async def cut_following(kafka: PrivateKafka, proxy: KafkaProxy, load: Load) -> None:
    for _ in range(5):
        proxy.cut(others=False)
        await load.wait_for_acks(100)


async def cut_others(kafka: PrivateKafka, proxy: KafkaProxy, load: Load) -> None:
    for _ in range(5):
        proxy.cut(following=False)
        await load.wait_for_acks(100)


async def cut_all(kafka: PrivateKafka, proxy: KafkaProxy, load: Load) -> None:
    for _ in range(5):
        proxy.cut()
        await load.wait_for_acks(100)


async def kill_9(kafka: PrivateKafka, proxy: KafkaProxy, load: Load) -> None:
    await asyncio.to_thread(kafka.kill)
    await asyncio.to_thread(kafka.start)
    await load.wait_for_acks(100)


async def kill_9_twice(kafka: PrivateKafka, proxy: KafkaProxy, load: Load) -> None:
    for _ in range(2):
        await kill_9(kafka, proxy, load)


async def freeze(kafka: PrivateKafka, proxy: KafkaProxy, load: Load) -> None:
    await asyncio.to_thread(kafka.freeze)
    try:
        await load.node.until(lambda: load.node.states[-1] == "degraded")
    finally:
        await asyncio.to_thread(kafka.thaw)


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", [cut_following, cut_others, cut_all, kill_9_twice, freeze])
async def test_fault_under_load_loses_and_repeats_nothing(
    kafka: PrivateKafka, proxy: KafkaProxy, trouble: Trouble
) -> None:
    load, listener = await under_load(kafka, lambda load: trouble(kafka, proxy, load))
    check(load, listener)
    assert listener.losses == [], "and nothing was said to be lost"
    assert (load.unknown, load.refused) == (set(), 0), "every publish was repeated until it was answered"


@pytest.mark.anyio
async def test_random_faults_lose_and_repeat_nothing(kafka: PrivateKafka, proxy: KafkaProxy) -> None:
    chance = random.Random(new_seed())
    async with near(kafka) as (one, other):
        loads = Load(one, name=b"one"), Load(other, name=b"other")
        async with asyncio.TaskGroup() as group:
            for load in loads:
                for partition in (0, 1):
                    group.create_task(load.run(partition))
            for trouble in chance.choices([cut_following, cut_others, cut_all, kill_9, freeze], k=6):
                sys.stdout.write(f"{trouble.__name__}\n")
                await trouble(kafka, proxy, chance.choice(loads))
                for _ in range(chance.randrange(3)):  # if 0, the next fault follows at once
                    await loads[0].wait_for_acks(20)
            for load in loads:
                await load.wait_for_acks(100)
                load.stopping = True
        await wait_for_end(one, other)
        await wait_for_end(other, one)
        for load in loads:
            assert (load.unknown, load.refused) == (set(), 0)
            for node in (one, other):
                check(load, node)
        assert one.losses == other.losses == []


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["node", "operator"])
async def test_recreated_topic_has_new_epoch(kafka: PrivateKafka, proxy: KafkaProxy, by: str) -> None:
    """Kafka counts from 0 again, and accepts the messages of nodes that have seen higher offsets."""

    async def delete(load: Load) -> None:
        topic = f"dws.{load.node.layout.channel}"
        await delete_topic(kafka.address, topic)
        if by == "operator":
            await create_topic(kafka.address, topic, 2)
        await load.node.until(lambda: len(load.node.losses) >= 2)

    load, listener = await under_load(kafka, delete)
    assert set(listener.losses) == {GapReason.EPOCH}
    check_after_last_gap(load, listener)


@pytest.mark.anyio
async def test_kafka_with_older_data_is_gap(kafka: PrivateKafka, proxy: KafkaProxy) -> None:
    """Kafka accepts messages after the older data, so offsets are used again."""

    async def set_back(load: Load) -> None:
        older = kafka.folder / "older"
        await asyncio.to_thread(kafka.kill)
        shutil.copytree(kafka.folder / "data", older)
        await asyncio.to_thread(kafka.start)
        await load.wait_for_acks(300)
        await asyncio.to_thread(kafka.kill)
        shutil.rmtree(kafka.folder / "data")
        older.rename(kafka.folder / "data")
        await asyncio.to_thread(kafka.start)

    load, listener = await under_load(kafka, set_back)
    assert GapReason.EPOCH in listener.losses
    check_after_last_gap(load, listener)


# -- retention


class StandingWire(KafkaWire):
    """A wire that receives nothing until `moving` is set."""

    moving: asyncio.Event

    async def follow(self, starts: Mapping[int, int | Start]) -> AsyncIterator[tuple[int, int, bytes]]:
        await self.moving.wait()
        async with aclosing(super().follow(starts)) as records:
            async for record in records:
                yield record


@pytest.mark.anyio
async def test_node_that_stands_still_past_retention_is_told(
    kafka: PrivateKafka, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with near(kafka) as (sender, listener):
        monkeypatch.setattr(StandingWire, "moving", asyncio.Event(), raising=False)
        broker = listener.broker
        monkeypatch.setattr(broker._node, "_make_wire", lambda: StandingWire(broker._login, broker.options, set()))
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.wait_for_acks(200)
            proxy.cut()
            await load.wait_for_acks(400)
            topic = f"dws.{sender.layout.channel}"
            places = {number: max(offset for _, offset, _ in load.receipts[number]) >> 16 for number in (0, 1)}
            await delete_records(kafka.address, topic, places)
            StandingWire.moving.set()
            await listener.until(lambda: len(listener.losses) >= 2)
            await load.wait_for_acks(200)
            load.stopping = True
        await wait_for_end(sender, listener)
        assert set(listener.losses) == {GapReason.TRIMMED}
        assert sender.losses == []
        check(load, sender)
        check_after_last_gap(load, listener)


@pytest.mark.anyio
async def test_read_past_retention_is_gap(kafka: PrivateKafka, proxy: KafkaProxy) -> None:
    """Deleted records are missed, and the records that remain are read."""
    async with near(kafka) as (sender, _):
        receipts = [await sender.broker.publish(0, "t", b"%d" % n, history=HISTORY) for n in range(20)]
        offsets = [receipt.offset or 0 for receipt in receipts]
        await sender.broker.stop()
        await delete_records(kafka.address, f"dws.{sender.layout.channel}", {0: offsets[10] >> 16})
        fresh = Node(kafka.url + "?partitions=2", sender.layout, 3)
        await fresh.start()
        try:
            for since, until in ((0, 19), (5, 19), (10, 19)):
                span = ReadSpan(
                    partition=0,
                    epoch=receipts[0].epoch,
                    since=offsets[since],
                    until=offsets[until],
                    topics=["t"],
                    limit=1000,
                    max_bytes=1_000_000,
                )
                found = await fresh.broker.read(span)
                if since < 10:
                    assert found == ReadResult(gap=GapReason.TRIMMED)
                else:
                    assert [record.payload for record in found.records] == [b"%d" % n for n in range(11, 20)]
        finally:
            await fresh.broker.stop()
