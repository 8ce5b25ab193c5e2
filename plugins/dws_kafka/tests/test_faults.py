"""Faults of a Kafka under load: every acknowledged message arrives once and in order, or a gap is reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial

import pytest
from dws_kafka._wire import KafkaWire
from support.broker_load import HISTORY, Load, Node, check, check_after_last_gap, wait_for_end
from support.fault_scenarios import (
    Trouble,
    freeze,
    kill_9,
    kill_9_twice,
    loses_and_repeats_nothing,
    near,
    publishing,
    random_faults_lose_and_repeat_nothing,
    repeat,
    under_load,
)
from support.kafka_admin import create_topic, delete_records, delete_topic
from support.kafka_proxy import ProxiedKafka
from support.seeds import new_seed

from dws_core.plugin import GapReason, ReadSpan, Start


async def cut_following(kafka: ProxiedKafka, load: Load) -> None:
    await repeat(partial(kafka.proxy.cut, others=False), load)


async def cut_others(kafka: ProxiedKafka, load: Load) -> None:
    await repeat(partial(kafka.proxy.cut, following=False), load)


async def cut_all(kafka: ProxiedKafka, load: Load) -> None:
    await repeat(kafka.proxy.cut, load)


CUTS: list[Trouble[ProxiedKafka]] = [cut_following, cut_others, cut_all]


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", [*CUTS, kill_9_twice, freeze])
async def test_fault_under_load_loses_and_repeats_nothing(kafka: ProxiedKafka, trouble: Trouble[ProxiedKafka]) -> None:
    await loses_and_repeats_nothing(near(kafka.url), kafka, trouble)


@pytest.mark.anyio
async def test_random_faults_lose_and_repeat_nothing(kafka: ProxiedKafka) -> None:
    troubles = [*CUTS, kill_9, freeze]
    await random_faults_lose_and_repeat_nothing(near(kafka.url), kafka, troubles, seed=new_seed(), count=6)


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["node", "operator"])
async def test_recreated_topic_has_new_epoch(kafka: ProxiedKafka, by: str) -> None:
    """Kafka counts from 0 again, and accepts the messages of nodes that have seen higher offsets."""

    async def delete(load: Load) -> None:
        topic = f"dws.{load.node.layout.channel}"
        await delete_topic(kafka.address, topic)
        if by == "operator":
            await create_topic(kafka.address, topic, 2)
        await load.node.until(lambda: len(load.node.losses) >= 2)

    load, listener = await under_load(near(kafka.url), delete)
    assert set(listener.losses) == {GapReason.EPOCH}
    check_after_last_gap(load, listener)


@pytest.mark.anyio
async def test_kafka_with_older_data_is_gap(kafka: ProxiedKafka) -> None:
    """Kafka accepts messages after the older data, so offsets are used again."""

    async def set_back(load: Load) -> None:
        await asyncio.to_thread(kafka.save)
        await load.wait_for_acks(300)
        await asyncio.to_thread(kafka.kill)
        await asyncio.to_thread(kafka.restore)
        await asyncio.to_thread(kafka.start)

    load, listener = await under_load(near(kafka.url), set_back)
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
    kafka: ProxiedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with near(kafka.url) as (sender, listener):
        monkeypatch.setattr(StandingWire, "moving", asyncio.Event(), raising=False)
        broker = listener.broker
        monkeypatch.setattr(broker._node, "_make_wire", lambda: StandingWire(broker._login, broker.options))
        load = Load(sender)
        async with publishing(load):
            await load.wait_for_acks(200)
            kafka.proxy.cut()
            await load.wait_for_acks(400)
            topic = f"dws.{sender.layout.channel}"
            places = {number: max(offset for _, offset, _ in load.receipts[number]) >> 16 for number in (0, 1)}
            await delete_records(kafka.address, topic, places)
            StandingWire.moving.set()
            await listener.until(lambda: len(listener.losses) >= 2)
            await load.wait_for_acks(200)
        await wait_for_end(sender, listener)
        assert set(listener.losses) == {GapReason.TRIMMED}
        assert sender.losses == []
        check(load, sender)
        check_after_last_gap(load, listener)


@pytest.mark.anyio
async def test_read_past_retention_is_gap(kafka: ProxiedKafka) -> None:
    """Deleted records are missed, and the records that remain are read."""
    async with near(kafka.url) as (sender, _):
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
                    assert (found.gap, found.records) == (GapReason.TRIMMED, ())
                else:
                    assert [record.payload for record in found.records] == [b"%d" % n for n in range(11, 20)]
        finally:
            await fresh.broker.stop()
