"""On a cluster of three servers: all that every broker does, and what only a cluster does: slots move, servers take over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from dws_redis import RedisBroker
from dws_redis._format import Names
from redis.crc import key_slot
from services.redis import PrivateRedis
from services.redis_cluster import PrivateCluster, PrivateSentinel, until
from support.redis_load import KEPT, Load, check, everything_came, messages, two_nodes

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


class Silent:
    """A sink that hears nothing."""

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


class ClusterFaults(BrokerFaults):
    """What can be done to all servers of a cluster."""

    def __init__(self, cluster: PrivateCluster) -> None:
        self.cluster = cluster

    async def cut_tail(self) -> None:
        for server in self.cluster.servers:
            server.command("CLIENT", "KILL", "TYPE", "pubsub")

    async def cut_commands(self) -> None:
        for server in self.cluster.servers:
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def restart(self) -> None:
        await asyncio.to_thread(self.cluster.restart)

    async def wipe(self) -> None:
        for server in self.cluster.servers:
            server.command("FLUSHALL")  # while they run

    async def take_down(self) -> None:
        self.cluster.kill()

    async def bring_up(self) -> None:
        await asyncio.to_thread(self.cluster.restart)

    async def freeze(self) -> None:
        for server in self.cluster.servers:
            server.freeze()

    async def thaw(self) -> None:
        for server in self.cluster.servers:
            server.thaw()


class TestRedisClusterBroker(BrokerConformance):
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
            await faults.cut_tail()
            await faults.cut_commands()

        return cut

    @pytest.fixture
    def fault(self, cluster: PrivateCluster) -> BrokerFaults:
        return ClusterFaults(cluster)


@pytest.mark.parametrize("partitions", [1, 2, 3, 8, 64])
def test_partitions_divide_the_slots_evenly(partitions: int) -> None:
    names = Names(prefix="dws", layout=Layout(channel="chat}{", partitions=partitions), spread=True)
    slots = [key_slot(names.base(number).encode()) for number in range(partitions)]
    assert [slot * partitions // 16_384 for slot in slots] == list(range(partitions))
    for number in range(partitions):
        others = (names.pushes(number), names.control(number), names.base(number) + "h:a{b}")
        assert {key_slot(other.encode()) for other in others} == {slots[number]}


@pytest.mark.anyio
async def test_every_server_has_its_share_of_the_partitions(cluster: PrivateCluster) -> None:
    async with two_nodes(cluster.url + QUICK, LAYOUT3) as (node, _):
        shards = node.broker._node._shards.values()  # type: ignore[union-attr]
        assert sorted(len(shard.partitions) for shard in shards) == [2, 2, 2]


LAYOUT3 = Layout(channel="shares", partitions=6)


@pytest.mark.anyio
async def test_a_slot_that_moves_under_load_loses_nothing(cluster: PrivateCluster) -> None:
    async with two_nodes(cluster.url + QUICK + "&trust_restart=always", LAYOUT) as (sender, listener):
        slot = sender.broker._node.names.slot(0)  # type: ignore[union-attr]
        source, target = cluster.primaries[:2]
        load = Load(sender)
        async with asyncio.TaskGroup() as group:
            for partition in (0, 1):
                group.create_task(load.run(partition))
            await load.more(200)
            await asyncio.to_thread(cluster.move_slot, slot, source, target)
            await load.more(400)
            load.stopping = True
        await everything_came(sender, listener)
        check(load, listener)
        assert listener.losses == []
        assert (load.unknown, load.refused) == (set(), 0)
        await asyncio.to_thread(cluster.move_slot, slot, target, source)


@pytest.mark.anyio
async def test_a_replica_that_takes_over_is_announced() -> None:
    """Replication does not wait: what was acknowledged last may be missing there."""
    cluster = PrivateCluster(replicas=1)
    cluster.start()
    try:
        async with two_nodes(cluster.url + QUICK, LAYOUT) as (sender, listener):
            load = Load(sender)
            async with asyncio.TaskGroup() as group:
                for partition in (0, 1):
                    group.create_task(load.run(partition))
                await load.more(200)
                cluster.primaries[0].kill()  # holds partition 0
                await listener.until(lambda: bool(listener.losses))
                await load.more(200)
                load.stopping = True
            await everything_came(sender, listener)
            assert listener.losses == [GapReason.EPOCH]
            for partition in (0, 1):
                heard = messages(listener, partition)
                assert len(heard) == len(set(heard)), "nothing twice"
            assert [p for p in messages(listener, 1) if p not in load.unknown] == load.acked[1], "no harm to the others"
    finally:
        cluster.remove()


@pytest.mark.timeout(120)  # a sentinel lets the old server be for 10 s
@pytest.mark.anyio
async def test_sentinels_lead_to_the_server_that_took_over() -> None:
    servers = PrivateSentinel()
    servers.start()
    try:
        async with two_nodes(servers.url + QUICK, LAYOUT) as (sender, listener):
            first = await sender.broker.publish(0, "t", b"before", history=KEPT)
            await listener.until(lambda: bool(listener.heard[0]))
            servers.primary.kill()
            receipt = await sender.broker.publish(0, "t", b"after", history=KEPT, deadline_s=20)
            assert receipt.epoch != first.epoch
            await listener.until(lambda: set(listener.losses) == {GapReason.EPOCH})
            await everything_came(sender, listener)
            servers.primary.start()  # it comes back and follows the other
            follows = lambda: b"role:slave" in servers.primary.command("INFO", "replication")  # noqa: E731 -- for until
            await asyncio.to_thread(until, follows, "the old one follows")
            again = await sender.broker.publish(0, "t", b"after that", history=KEPT)
            assert again.epoch == receipt.epoch
    finally:
        servers.remove()


@pytest.mark.anyio
async def test_a_server_of_a_cluster_and_a_server_of_none_are_told_apart(
    cluster: PrivateCluster, redis: PrivateRedis
) -> None:
    for url, fix in (
        (cluster.servers[0].url, r"redis\+cluster"),
        (redis.url.removesuffix("/0").replace("redis:", "redis+cluster:"), "redis://"),
    ):
        broker = RedisBroker.from_url(BrokerURL.parse(url))
        with pytest.raises(BrokerMisconfigured, match=fix):
            await broker.start(node=b"12345678", layout=LAYOUT, sink=Silent())  # type: ignore[arg-type]
