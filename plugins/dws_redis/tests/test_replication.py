"""Failover and replication: acknowledged messages that the new primary never received are reported as a gap."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator

import pytest
from services.redis import PrivateRedis
from services.redis_cluster import until
from support.broker_load import HISTORY, Node, two_nodes
from support.timeouts import HANG_S

from dws_core.plugin import BrokerError, GapReason, History, Layout, ReadSpan, Receipt

LAYOUT = Layout(channel="replicas", partitions=2)
QUICK = "?probe_s=100ms&dead_s=2s"


@pytest.fixture
def first() -> Iterator[PrivateRedis]:
    yield from running()


@pytest.fixture
def second() -> Iterator[PrivateRedis]:
    yield from running()


def running() -> Iterator[PrivateRedis]:
    redis = PrivateRedis(aof=True, **{"repl-diskless-sync-delay": "0"})
    redis.start()
    yield redis
    redis.remove()


async def follow(replica: PrivateRedis, primary: PrivateRedis) -> None:
    """Make one server a replica of the other. Return when it has all data, also on its disk."""
    replica.command("REPLICAOF", "127.0.0.1", str(primary.port))

    def is_in_step() -> bool:
        if b"master_link_status:up" not in replica.command("INFO", "replication"):
            return False
        disk = replica.command("INFO", "persistence")
        return b"aof_rewrite_in_progress:0" in disk and b"aof_rewrite_scheduled:0" in disk

    await asyncio.to_thread(until, is_in_step, "the replica is in step")


def cut(redis: PrivateRedis) -> None:
    """Close the nodes' connections, as a sentinel does."""
    for kind in ("pubsub", "normal"):
        redis.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


async def publish(node: Node, *payloads: bytes) -> list[Receipt]:
    return [await node.broker.publish(0, "t", payload, history=HISTORY, deadline_s=HANG_S) for payload in payloads]


async def told_of_it(listener: Node, old: Receipt, new: list[Receipt], payloads: list[bytes]) -> None:
    """Check that the listener receives a gap and the new messages, and that a read from an old position is a gap."""
    await listener.until(lambda: [p for _, p in listener.received[0]][-len(payloads) :] == payloads)
    heard = [payload for _, payload in listener.received[0]]
    assert len(heard) == len(set(heard)), "nothing twice"
    assert set(listener.losses) == {GapReason.EPOCH}
    assert {receipt.epoch for receipt in new}.isdisjoint({old.epoch})
    assert old.offset is not None
    assert new[-1].offset is not None
    found = await listener.broker.read(
        ReadSpan(
            partition=0,
            since=old.offset - 1,
            until=new[-1].offset,
            epoch=old.epoch,
            topics=["t"],
            limit=9,
            max_bytes=999,
        )
    )
    assert found.gap == GapReason.EPOCH


@pytest.mark.anyio
@pytest.mark.parametrize("connections", ["stay", "are cut"])
async def test_server_that_was_briefly_replica_has_new_epoch(
    first: PrivateRedis, second: PrivateRedis, connections: str
) -> None:
    """The process is the same and the connections may stay open. Only the history has changed."""
    async with two_nodes(first.url + QUICK, LAYOUT) as (sender, listener):
        await follow(second, first)
        await publish(sender, b"both 0", b"both 1")
        await asyncio.to_thread(until, lambda: b"both 1" in entries(second), "the replica has it")
        second.command("REPLICAOF", "NO", "ONE")
        *_, old = await publish(sender, b"lost 0", b"lost 1", b"lost 2")
        await listener.until(lambda: len(listener.received[0]) == 5)
        await follow(first, second)  # and discards its own messages
        if connections == "are cut":
            cut(first)
        first.command("REPLICAOF", "NO", "ONE")
        await listener.until(lambda: bool(listener.losses))
        new = [b"new 0", b"new 1", b"new 2"]
        await told_of_it(listener, old, await publish(sender, *new), new)


def entries(redis: PrivateRedis) -> bytes:
    found: bytes = redis.command("XRANGE", "dws:{0:replicas}:h:t", "-", "+")
    return found


@pytest.mark.anyio
async def test_server_with_data_of_lagging_replica_has_new_epoch(first: PrivateRedis, second: PrivateRedis) -> None:
    """The server reports that it has synced every write. This is true for the writes that it received."""
    async with two_nodes(first.url + QUICK, LAYOUT) as (sender, listener):
        await follow(second, first)
        await publish(sender, b"both 0", b"both 1")
        await asyncio.to_thread(until, lambda: b"both 1" in entries(second), "the replica has it")
        second.kill()
        *_, old = await publish(sender, b"lost 0", b"lost 1", b"lost 2")
        await listener.until(lambda: len(listener.received[0]) == 5)
        first.kill()
        shutil.rmtree(first.folder / "appendonlydir")
        shutil.copytree(second.folder / "appendonlydir", first.folder / "appendonlydir")
        first.start()
        await listener.until(lambda: bool(listener.losses))
        new = [b"new 0", b"new 1", b"new 2", b"new 3"]
        await told_of_it(listener, old, await publish(sender, *new), new)


@pytest.mark.anyio
async def test_former_replica_has_new_epoch_for_new_nodes(first: PrivateRedis, second: PrivateRedis) -> None:
    """No node that received the lost messages is running any more."""
    async with two_nodes(first.url + QUICK, LAYOUT) as (sender, _):
        await follow(second, first)
        await publish(sender, b"both 0", b"both 1")
        await asyncio.to_thread(until, lambda: b"both 1" in entries(second), "the replica has it")
        second.command("REPLICAOF", "NO", "ONE")
        *_, old = await publish(sender, b"lost 0", b"lost 1", b"lost 2")
    await follow(first, second)
    first.command("REPLICAOF", "NO", "ONE")
    async with two_nodes(first.url + QUICK, LAYOUT) as (sender, _):
        new = await publish(sender, b"new 0", b"new 1", b"new 2", b"new 3")
        assert {receipt.epoch for receipt in new}.isdisjoint({old.epoch})


@pytest.mark.anyio
async def test_replica_rejects_publish_without_history(first: PrivateRedis, second: PrivateRedis) -> None:
    async with two_nodes(first.url + QUICK, LAYOUT) as (sender, _):
        await sender.broker.publish(0, "t", b"x", history=History.none())
        await follow(first, second)
        await sender.until(lambda: sender.states[-1] == "degraded")
        with pytest.raises(BrokerError):
            await sender.broker.publish(0, "t", b"x", history=History.none(), deadline_s=0.2)
        first.command("REPLICAOF", "NO", "ONE")
        await sender.until(lambda: sender.states[-1] == "live")
        await sender.broker.publish(0, "t", b"x", history=History.none())
