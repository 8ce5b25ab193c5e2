"""Publishing to a Redis that is full, frozen or overloaded, and logs that lose data."""

from __future__ import annotations

import asyncio

import pytest
from services.redis import PrivateRedis
from support.broker_load import HISTORY, Node, two_nodes
from support.timeouts import HANG_S

from dws_core.plugin import (
    BrokerOverloaded,
    BrokerUnavailable,
    GapReason,
    Layout,
    PayloadTooLarge,
    PublishOutcomeUnknown,
    ReadResult,
    ReadSpan,
    Receipt,
)

LAYOUT = Layout(channel="limits", partitions=2)


@pytest.mark.anyio
async def test_full_redis_rejects_publishes_and_is_blocked(server: PrivateRedis) -> None:
    """The state is `live` again as soon as Redis has memory."""
    async with two_nodes(server.url, LAYOUT) as (sender, listener):
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BrokerOverloaded, match="maxmemory"):
            await sender.broker.publish(0, "t", b"lost", history=HISTORY)
        assert sender.states[-1] == "blocked"
        server.command("CONFIG", "SET", "maxmemory", "0")
        await sender.broker.publish(0, "t", b"kept", history=HISTORY)
        assert sender.states[-1] == "live"
        await listener.until(lambda: bool(listener.received[0]))
        assert [payload for _, payload in listener.received[0]] == [b"kept"], "what was refused was not stored"


@pytest.mark.anyio
async def test_queue_for_frozen_redis_is_bounded(server: PrivateRedis) -> None:
    """The queued messages are delivered once and in order."""
    async with two_nodes(server.url + "?max_queue_bytes=100kB&dead_s=120s", LAYOUT) as (sender, listener):
        server.freeze()
        try:
            payloads = [b"%d " % number + b"x" * 500 for number in range(2_000)]
            futures = []
            for payload in payloads:
                futures.append(sender.broker.publish(0, "t", payload, history=HISTORY, deadline_s=HANG_S))
                await asyncio.sleep(0)
            refused = [number for number, future in enumerate(futures) if future.done()]
            assert refused, "those that found no room were told at once"
        finally:
            server.thaw()
        answers = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(answers[number], BrokerOverloaded) for number in refused)
        kept = [payload for number, payload in enumerate(payloads) if number not in set(refused)]
        await listener.until(lambda: len(listener.received[0]) >= len(kept))
        assert [payload for _, payload in listener.received[0]] == kept


@pytest.mark.anyio
async def test_deadline_error_depends_on_whether_it_was_sent(server: PrivateRedis) -> None:
    async with two_nodes(server.url + "?dead_s=120s", LAYOUT) as (sender, _):
        server.freeze()
        try:
            with pytest.raises(PublishOutcomeUnknown):
                await sender.broker.publish(0, "t", b"sent", history=HISTORY, deadline_s=0.2)
        finally:
            server.thaw()
        server.kill()
        await sender.until(lambda: sender.states[-1] == "degraded")
        with pytest.raises(BrokerUnavailable):
            await sender.broker.publish(0, "t", b"never sent", history=HISTORY, deadline_s=0.2)


@pytest.mark.anyio
async def test_oversized_payload_is_not_sent(server: PrivateRedis) -> None:
    async with two_nodes(server.url + "?max_payload_bytes=10", LAYOUT) as (sender, listener):
        with pytest.raises(PayloadTooLarge):
            await sender.broker.publish(0, "t", b"x" * 11, history=HISTORY)
        await sender.broker.publish(0, "t", b"x" * 10, history=HISTORY)
        await listener.until(lambda: bool(listener.received[0]))
        assert len(listener.received[0]) == 1


@pytest.mark.anyio
async def test_flushed_log_is_epoch_gap(server: PrivateRedis) -> None:
    async with two_nodes(server.url + "?probe_s=200ms&dead_s=2s", LAYOUT) as (sender, listener):
        await sender.broker.publish(0, "t", b"x", history=HISTORY)
        server.command("FLUSHALL")
        await listener.until(lambda: bool(listener.losses))
        assert set(listener.losses) == {"epoch"}


async def missed(node: Node, first: Receipt, last: Receipt) -> ReadResult:
    """Read the messages of the topic `t` after the first one."""
    assert first.offset is not None
    assert last.offset is not None
    return await node.broker.read(
        ReadSpan(
            partition=0,
            since=first.offset,
            until=last.offset,
            epoch=first.epoch,
            topics=["t"],
            limit=10,
            max_bytes=1_000,
        )
    )


@pytest.mark.anyio
@pytest.mark.parametrize("evicted", ["i", "m"])
async def test_partly_evicted_log_is_epoch_gap(server: PrivateRedis, evicted: str) -> None:
    """Old and new records are not mixed."""
    async with two_nodes(server.url + "?probe_s=200ms&dead_s=2s", LAYOUT) as (sender, listener):
        first, *_, last = [await sender.broker.publish(0, "t", b"old %d" % n, history=HISTORY) for n in range(5)]
        assert len((await missed(sender, first, last)).records) == 4
        server.command("DEL", f"dws:{{0:limits}}:{evicted}")  # like an eviction
        assert (await missed(sender, first, last)).gap == GapReason.EPOCH
        begin, *_, end = [await sender.broker.publish(0, "t", b"new %d" % n, history=HISTORY) for n in range(3)]
        assert begin.epoch != first.epoch
        await listener.until(lambda: bool(listener.losses))
        assert set(listener.losses) == {GapReason.EPOCH}
        await listener.until(lambda: listener.received[0][-1][1] == b"new 2")
        heard = [payload for _, payload in listener.received[0]]
        assert heard[:5] == [b"old %d" % n for n in range(5)]
        assert heard[5:] == [b"new %d" % n for n in range(3)][-len(heard[5:]) :], "all behind the gap, once"
        assert [record.payload for record in (await missed(sender, begin, end)).records] == [b"new 1", b"new 2"]
        assert server.command("XLEN", "dws:{0:limits}:h:t") == b":3\r\n", "nothing is left of the log that is no more"


@pytest.mark.anyio
async def test_node_without_interest_survives_flush(server: PrivateRedis) -> None:
    async with two_nodes(server.url + "?probe_s=100ms&dead_s=2s", LAYOUT) as (_, listener):
        await listener.broker.set_interest(frozenset())
        server.command("FLUSHALL")
        async with asyncio.timeout(HANG_S):
            while True:
                try:
                    heads = await listener.broker.set_interest(frozenset({0}))
                except BrokerUnavailable:
                    continue
                break
        assert heads[0].offset == 0


@pytest.mark.anyio
async def test_log_without_index_is_one_gap(server: PrivateRedis) -> None:
    """This also holds while a node catches up, because the gap must not be requested repeatedly."""
    async with two_nodes(server.url + "?probe_s=100ms&dead_s=2s", LAYOUT) as (sender, listener):
        await sender.broker.publish(0, "t", b"x", history=HISTORY)
        await listener.until(lambda: bool(listener.received[0]))
        server.command("DEL", "dws:{0:limits}:i")
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        for node in (sender, listener):
            await node.until(lambda n=node: bool(n.losses) and n.states[-1] == "live")  # type: ignore[misc]
            assert node.losses == [GapReason.EPOCH]
