"""A cluster of three servers: the broker suite, moving slots, and failover."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import count

import pytest
from dws_redis import RedisBroker
from dws_redis._format import Names
from redis.crc import key_slot
from services.redis import PrivateRedis
from services.redis_cluster import PrivateCluster
from support.broker_load import IgnoringSink, Load, check, check_after_last_gap, two_nodes, wait_for_end

from dws_core.plugin import BrokerMisconfigured, BrokerURL, GapReason, Layout
from dws_core.testing import BrokerConformance, BrokerFaults

LAYOUT = Layout(channel="faults", partitions=3)  # one for each server
QUICK = "?probe_s=200ms&dead_s=1s"


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    servers = PrivateCluster()
    servers.start()
    yield servers
    servers.remove()


class ClusterFaults(BrokerFaults):
    """Faults of all servers of a cluster."""

    def __init__(self, cluster: PrivateCluster) -> None:
        self.cluster = cluster

    def cut_tail(self) -> None:
        for server in self.cluster.servers:
            server.command("CLIENT", "KILL", "TYPE", "pubsub")

    def cut_commands(self) -> None:
        for server in self.cluster.servers:
            server.lose_replies()

    def restart(self) -> None:
        self.cluster.restart()

    def wipe(self) -> None:
        for server in self.cluster.servers:
            server.command("FLUSHALL")  # while they run

    def take_down(self) -> None:
        self.cluster.kill()

    def bring_up(self) -> None:
        self.cluster.restart()

    def freeze(self) -> None:
        for server in self.cluster.servers:
            server.freeze()

    def thaw(self) -> None:
        for server in self.cluster.servers:
            server.thaw()


class TestRedisClusterBroker(BrokerConformance):
    broker = RedisBroker
    count_operations = None  # counted in test_redis_only.py, because this suite probes more often than users do

    @pytest.fixture
    def broker_url(self, cluster: PrivateCluster) -> str:
        return cluster.url + QUICK

    @pytest.fixture
    def unreachable_url(self) -> str:
        return "redis+cluster://user:hush@127.0.0.1:1"

    @pytest.fixture
    def sever(self, cluster: PrivateCluster) -> Callable[[], Awaitable[None]]:
        faults = ClusterFaults(cluster)

        async def cut() -> None:
            await asyncio.to_thread(faults.cut_tail)
            await asyncio.to_thread(faults.cut_commands)

        return cut

    @pytest.fixture
    def fault(self, cluster: PrivateCluster) -> ClusterFaults:
        return ClusterFaults(cluster)


@pytest.mark.parametrize("partitions", [1, 2, 3, 8, 64, 1024, 4096])
def test_partitions_divide_the_slots_evenly(partitions: int) -> None:
    names = Names(prefix="dws", layout=Layout(channel="chat}{", partitions=partitions), spread=True)
    slots = [key_slot(names.base(number).encode()) for number in range(partitions)]
    assert [slot * partitions // 16_384 for slot in slots] == list(range(partitions))
    for number in range(partitions):
        others = (names.push_channel(number), names.control_channel(number), names.base(number) + "h:a{b}")
        assert {key_slot(other.encode()) for other in others} == {slots[number]}


@pytest.mark.parametrize("partitions", [1, 2, 3, 7, 64, 300])
@pytest.mark.parametrize("channel", ["chat", "chat}{", "}", "räume/" * 20])
def test_partition_has_first_name_in_its_slot_range(partitions: int, channel: str) -> None:
    names = Names(prefix="dws", layout=Layout(channel=channel, partitions=partitions), spread=True)
    for number in range(partitions):
        bases = (f"dws:{{{number}.{n}:{channel}}}:" for n in count())
        first = next(base for base in bases if key_slot(base.encode()) * partitions // 16_384 == number)
        assert names.base(number) == first


@pytest.mark.anyio
async def test_partitions_are_spread_over_all_servers(cluster: PrivateCluster) -> None:
    async with two_nodes(cluster.url + QUICK, LAYOUT3) as (node, _):
        shards = node.broker._node._shards.values()  # type: ignore[union-attr]
        assert sorted(len(shard.partitions) for shard in shards) == [2, 2, 2]


LAYOUT3 = Layout(channel="shares", partitions=6)


@pytest.mark.anyio
async def test_slot_move_under_load_loses_nothing(cluster: PrivateCluster) -> None:
    async with two_nodes(cluster.url + QUICK + "&trust_restart=always", LAYOUT) as (sender, listener):
        slot = sender.broker._node.names.slot(0)  # type: ignore[union-attr]
        source, target = cluster.primaries[:2]
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.wait_for_acks(200)
            await asyncio.to_thread(cluster.move_slot, slot, source, target)
            await load.wait_for_acks(400)
            load.stopping = True
        await wait_for_end(sender, listener)
        check(load, listener)
        assert listener.losses == []
        assert (load.unknown, load.refused) == (set(), 0)
        await asyncio.to_thread(cluster.move_slot, slot, target, source)


@pytest.mark.anyio
async def test_failover_to_replica_is_epoch_gap() -> None:
    """Replication is asynchronous, so the replica may lack the last acknowledged messages."""
    cluster = PrivateCluster(replicas=1)
    cluster.start()
    try:
        async with two_nodes(cluster.url + QUICK, LAYOUT) as (sender, listener):
            load = Load(sender)
            async with asyncio.TaskGroup() as group:
                for partition in (0, 1):
                    group.create_task(load.run(partition))
                await load.wait_for_acks(200)
                cluster.primaries[0].kill()  # holds partition 0
                await listener.until(lambda: bool(listener.losses))
                await load.wait_for_acks(200)
                load.stopping = True
            await wait_for_end(sender, listener)
            assert listener.losses == [GapReason.EPOCH]
            check_after_last_gap(load, listener)
            assert set(listener.heads) == {0}, "no harm to the others"
    finally:
        cluster.remove()


@pytest.mark.anyio
async def test_url_scheme_must_match_cluster_mode(cluster: PrivateCluster, redis: PrivateRedis) -> None:
    for url, fix in (
        (cluster.servers[0].url, r"redis\+cluster"),
        (redis.url.removesuffix("/0").replace("redis:", "redis+cluster:"), "redis://"),
    ):
        broker = RedisBroker.from_url(BrokerURL.parse(url))
        with pytest.raises(BrokerMisconfigured, match=fix):
            await broker.start(node=b"12345678", layout=LAYOUT, sink=IgnoringSink())  # type: ignore[arg-type]
