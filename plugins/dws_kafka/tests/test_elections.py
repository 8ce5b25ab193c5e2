"""Partitions of a cluster move to other brokers under load, in an orderly way, after a crash, and with a loss."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest
from services.kafka import PrivateKafka, PrivateKafkaCluster
from support.broker_load import Load, Node, check, check_after_last_gap, two_nodes, wait_for_end
from support.kafka_admin import create_topic, in_sync, leader
from support.timeouts import progress_timeout

from dws_core.plugin import GapReason, Layout


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateKafkaCluster]:
    servers = PrivateKafkaCluster(replica_lag_time_max_ms="2000", unclean_leader_election_interval_ms="500")
    try:
        servers.start()
        yield servers
    finally:
        servers.remove()


@pytest.fixture
def topic() -> str:
    """The topic of a new channel."""
    return f"dws.elections-{secrets.token_hex(4)}"


def near(cluster: PrivateKafkaCluster, topic: str) -> AbstractAsyncContextManager[tuple[Node, Node]]:
    layout = Layout(channel=topic.removeprefix("dws."), partitions=2)
    return two_nodes(cluster.url + "?probe_s=200ms&dead_s=2s", layout)


async def until_in_sync(cluster: PrivateKafkaCluster, topic: str, count: int) -> None:
    async with progress_timeout():
        while await in_sync(cluster.addresses, topic) != count:  # noqa: ASYNC110 -- Kafka sends no notification
            await asyncio.sleep(0.05)


async def leave(broker: PrivateKafka) -> None:
    await asyncio.to_thread(broker.leave)


async def crash(broker: PrivateKafka) -> None:
    await asyncio.to_thread(broker.kill)


@pytest.mark.anyio
@pytest.mark.parametrize("end", [leave, crash])
async def test_leader_move_loses_and_repeats_nothing(
    cluster: PrivateKafkaCluster, topic: str, end: Callable[[PrivateKafka], Awaitable[None]]
) -> None:
    async with near(cluster, topic) as (sender, listener):
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.wait_for_acks(200)
            await until_in_sync(cluster, topic, 3)
            broker = cluster.brokers[before := await leader(cluster.addresses, topic, 0)]
            await end(broker)
            try:
                await load.wait_for_acks(200)
                assert await leader(cluster.addresses, topic, 0) not in (before, -1)
            finally:
                await asyncio.to_thread(broker.start)
            await until_in_sync(cluster, topic, 3)
            await load.wait_for_acks(200)
            load.stopping = True
        await wait_for_end(sender, listener)
        check(load, listener)
        assert listener.losses == []
        assert (load.unknown, load.refused) == (set(), 0)
        assert "degraded" in listener.states, "it has compared its last record with that of the new leader"


@pytest.mark.anyio
async def test_unclean_election_is_gap(cluster: PrivateKafkaCluster, topic: str) -> None:
    """The new leader misses acknowledged records, and Kafka accepts others in their place."""
    await create_topic(
        cluster.addresses, topic, 2, 3, min_insync_replicas="1", **{"unclean.leader.election.enable": "true"}
    )
    async with near(cluster, topic) as (sender, listener):
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.wait_for_acks(200)
            await until_in_sync(cluster, topic, 3)
            last = await leader(cluster.addresses, topic, 0)
            others = [number for number in cluster.brokers if number != last]
            for number in others:
                await crash(cluster.brokers[number])
            await load.wait_for_acks(400)  # only the last broker has these
            await crash(cluster.brokers[last])
            for number in others:
                await asyncio.to_thread(cluster.brokers[number].start)
            await load.wait_for_acks(200)
            await asyncio.to_thread(cluster.brokers[last].start)
            await load.wait_for_acks(200)
            load.stopping = True
        await wait_for_end(sender, listener)
        assert GapReason.EPOCH in listener.losses
        check_after_last_gap(load, listener)
