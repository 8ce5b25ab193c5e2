"""Three RabbitMQ servers in a cluster: the server with the leader of a stream is killed under load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from services.rabbitmq import Erlang, PrivateRabbit
from support.broker_load import Load, check, two_nodes, wait_for_end
from support.timeouts import HANG_S

from dws_core.plugin import Layout

LAYOUT = Layout(channel="cluster", partitions=2)


@pytest.fixture
def cluster() -> Iterator[list[PrivateRabbit]]:
    erlang = Erlang()
    nodes = [PrivateRabbit(erlang, number, 3) for number in range(3)]
    try:
        for node in nodes:  # one after the other, so that each finds the first
            node.start()
        yield nodes
    finally:
        for node in nodes:
            node.remove()
        erlang.remove()


@pytest.mark.anyio
async def test_killed_leader_loses_and_repeats_nothing(cluster: list[PrivateRabbit]) -> None:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    url = f"amqp://guest:guest@{hosts}/?probe_s=200ms&dead_s=3s"
    # A server refuses to read a new stream of which it has no replica yet.
    async with two_nodes(url, LAYOUT, patience_s=HANG_S) as (sender, listener):
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.wait_for_acks(200)
            leader = cluster[0].leader("dws.cluster.log.0")
            await asyncio.to_thread(next(node for node in cluster if node.name == leader).kill)
            await load.wait_for_acks(400)
            load.stopping = True
        await wait_for_end(sender, listener)
        check(load, listener)
        assert listener.losses == []
