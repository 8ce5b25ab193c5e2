"""Commands that Redis refuses: the reported outcome must be correct, also for a command that was sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from services.redis import PrivateRedis
from support.broker_load import HISTORY, Node, two_nodes
from support.relay import Relay
from support.timeouts import HANG_S

from dws_core.plugin import (
    BrokerError,
    BrokerOverloaded,
    BrokerUnavailable,
    History,
    Layout,
    LayoutMismatch,
    PublishOutcomeUnknown,
)

LAYOUT = Layout(channel="refusals", partitions=2)
QUICK = "?probe_s=100ms&dead_s=2s"
BASE = "dws:{0:refusals}:"


def no_memory(redis: PrivateRedis) -> None:
    redis.command("CONFIG", "SET", "maxmemory", "1")


def memory(redis: PrivateRedis) -> None:
    redis.command("CONFIG", "SET", "maxmemory", "0")


def no_replicas(redis: PrivateRedis) -> None:
    redis.command("CONFIG", "SET", "min-replicas-to-write", "3")


def no_right(redis: PrivateRedis) -> None:
    redis.command("ACL", "SETUSER", "default", "-evalsha")


def no_right_inside(redis: PrivateRedis) -> None:
    redis.command("ACL", "SETUSER", "default", "-publish")


async def outcome(future: Awaitable[object]) -> object:
    """Return a receipt, or the class of the error."""
    try:
        async with asyncio.timeout(HANG_S):
            return await future
    except BrokerError as error:
        return type(error)


def stored(redis: PrivateRedis, payload: bytes) -> int:
    return int(redis.command("XRANGE", BASE + "h:t", "-", "+").count(payload))


# -- refused the first time


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("trouble", "error"),
    [(no_memory, BrokerOverloaded), (no_replicas, BrokerUnavailable), (no_right, BrokerUnavailable)],
)
async def test_publish_refused_before_write_is_not_stored(
    server: PrivateRedis, trouble: Callable[[PrivateRedis], None], error: type[BrokerError]
) -> None:
    async with two_nodes(server.url, LAYOUT) as (sender, _):
        trouble(server)
        assert await outcome(sender.broker.publish(0, "t", b"refused", history=HISTORY)) is error
        assert stored(server, b"refused") == 0


@pytest.mark.anyio
async def test_half_finished_publish_is_unknown_outcome(
    server: PrivateRedis,
) -> None:
    """The message is stored and delivered later."""
    async with two_nodes(server.url + QUICK, LAYOUT) as (sender, listener):
        no_right_inside(server)
        answer = await outcome(sender.broker.publish(0, "t", b"halfway", history=HISTORY))
        assert answer is PublishOutcomeUnknown
        assert stored(server, b"halfway") == 1
        server.command("ACL", "SETUSER", "default", "+publish")
        for number in range(3):
            await sender.broker.publish(0, "t", b"then %d" % number, history=HISTORY)
        await listener.until(lambda: len(listener.received[0]) == 4)
        offsets, payloads = zip(*listener.received[0], strict=True)
        assert payloads == (b"halfway", b"then 0", b"then 1", b"then 2")
        assert list(offsets) == sorted(set(offsets)), "no place is given twice"
        assert listener.losses == []


# -- refused when repeated after a lost reply


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", [no_memory, no_replicas])
async def test_stored_publish_is_acknowledged_when_repeated(
    server: PrivateRedis, trouble: Callable[[PrivateRedis], None]
) -> None:
    """This also holds if Redis cannot write any more."""
    async with Relay.to(server.port) as relay:
        url = f"redis://127.0.0.1:{relay.port}/0{QUICK}"
        async with two_nodes(url, LAYOUT) as (sender, listener):
            relay.dropping_replies = True
            future = sender.broker.publish(0, "t", b"once", history=HISTORY, deadline_s=HANG_S)
            async with asyncio.timeout(HANG_S):
                while not await asyncio.to_thread(stored, server, b"once"):
                    pass
            trouble(server)
            relay.dropping_replies = False
            relay.cut()
            receipt = await outcome(future)
            assert getattr(receipt, "offset", None) == 1, receipt
            await listener.until(lambda: bool(listener.received[0]))
            assert stored(server, b"once") == 1


@pytest.mark.anyio
async def test_repeat_refused_after_eviction_is_unknown_outcome(server: PrivateRedis) -> None:
    async with Relay.to(server.port) as relay:
        url = f"redis://127.0.0.1:{relay.port}/0{QUICK}"
        async with two_nodes(url, LAYOUT) as (sender, _):
            relay.dropping_replies = True
            future = sender.broker.publish(0, "t", b"once", history=HISTORY, deadline_s=HANG_S)
            async with asyncio.timeout(HANG_S):
                while not await asyncio.to_thread(stored, server, b"once"):
                    pass
            no_memory(server)
            server.command("DEL", f"{BASE}r:{sender.id.hex()}")  # the record of the first attempt, as if evicted
            relay.dropping_replies = False
            relay.cut()
            assert await outcome(future) is PublishOutcomeUnknown


# -- out of memory


@pytest.mark.anyio
async def test_freed_memory_is_noticed_without_publishes(server: PrivateRedis) -> None:
    async with two_nodes(server.url + QUICK, LAYOUT) as (sender, _):
        no_memory(server)
        assert await outcome(sender.broker.publish(0, "t", b"x", history=HISTORY)) is BrokerOverloaded
        assert sender.states[-1] == "blocked"
        memory(server)
        await sender.until(lambda: sender.states[-1] == "live")


@pytest.mark.anyio
async def test_reconnect_to_full_redis_is_blocked_then_live(
    server: PrivateRedis,
) -> None:
    async with two_nodes(server.url + QUICK, LAYOUT) as (sender, _):
        no_memory(server)
        assert await outcome(sender.broker.publish(0, "t", b"x", history=HISTORY)) is BrokerOverloaded
        for kind in ("pubsub", "normal"):
            server.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        await sender.until(lambda: sender.states[-2:] == ["degraded", "blocked"])
        memory(server)
        await sender.until(lambda: sender.states[-1] == "live")


# -- layout and index of the channel


@pytest.mark.anyio
async def test_other_layout_is_rejected_after_data_loss(server: PrivateRedis) -> None:
    async with two_nodes(server.url + QUICK, LAYOUT) as (sender, listener):
        server.kill()
        server.start()
        for node in (sender, listener):
            await node.until(lambda n=node: "degraded" in n.states and n.states[-1] == "live")  # type: ignore[misc]
        other = Node(server.url + "?partitions=3", Layout(channel="refusals", partitions=3), 3)
        with pytest.raises(LayoutMismatch):
            await other.start()


@pytest.mark.anyio
async def test_names_of_expired_topics_are_deleted(server: PrivateRedis) -> None:
    async with two_nodes(server.url, LAYOUT) as (sender, _):
        for turn in range(5):
            short = History(size=1, ttl_s=0.001)
            topics = [f"topic/{turn}/{number}" for number in range(640)]
            await asyncio.gather(*(sender.broker.publish(0, topic, b"x", history=short) for topic in topics))
            names = int(server.command("ZCARD", BASE + "i")[1:])
            assert names <= 640 + 64, "those of the rounds before are forgotten"
