"""Publishing to Redis: the order of publishes after a refusal, and queued publishes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from dws_redis._connection import Commands, Lost
from dws_redis._scripts import ALL
from services.redis import PrivateRedis
from support.broker_load import HISTORY, Node, two_nodes
from support.timeouts import HANG_S

from dws_core.plugin import BrokerUnavailable, GapReason, Layout, PublishOutcomeUnknown

LAYOUT = Layout(channel="publishing", partitions=2)


@pytest.fixture
def durable() -> Iterator[PrivateRedis]:
    """A private Redis that keeps its log when it is killed."""
    redis = PrivateRedis(aof=True)
    redis.start()
    yield redis
    redis.remove()


@pytest.mark.anyio
async def test_temporary_refusal_keeps_order(server: PrivateRedis) -> None:
    """The first batch fails because a script is missing. The next batch must not be in flight, or it might succeed."""
    async with two_nodes(server.url + "?probe_s=200ms&dead_s=2s", LAYOUT) as (sender, listener):
        server.command("SCRIPT", "FLUSH")
        commands = sender.broker._node.commands(0)  # type: ignore[union-attr]
        sent = commands.send
        batches = 0

        def send(command: tuple[object, ...], take: object) -> None:
            nonlocal batches
            if command[0] == "EVALSHA" and command[1] == ALL[0].digest:
                batches += 1
                if batches > 1:
                    for script in ALL:  # between the two, on the same connection
                        sent(("SCRIPT", "LOAD", script.source), lambda _: None)
            sent(command, take)  # type: ignore[arg-type]

        commands.send = send  # type: ignore[method-assign]
        payloads = [b"%d" % number for number in range(200)]
        await asyncio.gather(*(sender.broker.publish(0, "t", payload, history=HISTORY) for payload in payloads))
        await listener.until(lambda: len(listener.received[0]) == len(payloads))
        assert [payload for _, payload in listener.received[0]] == payloads


@pytest.mark.anyio
async def test_expired_publishes_free_queue_space(server: PrivateRedis) -> None:
    async with two_nodes(server.url + "?max_queue_bytes=1MiB", LAYOUT) as (sender, listener):
        server.kill()
        await sender.until(lambda: sender.states[-1] == "degraded")
        futures = [sender.broker.publish(0, "t", b"x" * 100_000, history=HISTORY, deadline_s=0.1) for _ in range(10)]
        for answer in await asyncio.gather(*futures, return_exceptions=True):
            assert isinstance(answer, BrokerUnavailable), answer
        late = [sender.broker.publish(0, "t", b"y" * 100_000, history=HISTORY, deadline_s=HANG_S) for _ in range(8)]
        server.start()
        for answer in await asyncio.gather(*late, return_exceptions=True):
            assert not isinstance(answer, BaseException), answer
        await listener.until(lambda: GapReason.EPOCH in listener.losses)


@pytest.mark.anyio
async def test_followers_of_expired_publish_fail_with_it(server: PrivateRedis) -> None:
    """The first one is on its way, the others wait. A publish of another order is stored."""
    async with two_nodes(server.url + "?probe_s=200ms&dead_s=1s", LAYOUT) as (sender, listener):
        publish = partial(sender.broker.publish, 0, "t", history=HISTORY)
        await publish(b"before")
        server.freeze()
        try:
            first = publish(b"first", key="first", order="a", deadline_s=0.3)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            later = [publish(b"%d" % n, key=str(n), order="a", deadline_s=HANG_S) for n in range(3)]
            other = publish(b"other", order="b", deadline_s=HANG_S)
            with pytest.raises(PublishOutcomeUnknown):
                await first
            assert [type(future.exception()) for future in later] == [BrokerUnavailable] * 3
            assert not other.done()
        finally:
            server.thaw()
        await other
        again = [
            publish(b"first", key="first", order="a"),
            *(publish(b"%d" % n, key=str(n), order="a") for n in range(3)),
        ]
        await asyncio.gather(*again)
        await listener.until(lambda: len(listener.received[0]) == 6)
        received = [payload for _, payload in listener.received[0] if payload not in (b"before", b"other")]
        assert received == [b"first", b"0", b"1", b"2"]
        publisher = sender.broker._node.publisher  # type: ignore[union-attr]
        assert not any(publisher._waiting.values())
        assert not publisher._ordered


@pytest.mark.anyio
async def test_followers_in_lost_batch_are_not_sent_again(durable: PrivateRedis) -> None:
    """The batch of an expired publish is sent again for another one in it."""
    async with two_nodes(durable.url + "?probe_s=200ms&dead_s=1s", LAYOUT) as (sender, listener):
        publish = partial(sender.broker.publish, 0, "t", history=HISTORY)
        await publish(b"before")
        durable.kill()
        first = publish(b"first", order="a", deadline_s=0.3)
        later = publish(b"later", order="a", deadline_s=HANG_S)
        other = publish(b"other", order="b", deadline_s=HANG_S)
        with pytest.raises((PublishOutcomeUnknown, BrokerUnavailable)):
            await first
        assert isinstance(later.exception(), (PublishOutcomeUnknown, BrokerUnavailable))
        durable.start()
        await other
        await listener.until(lambda: b"other" in [payload for _, payload in listener.received[0]])
        received = [payload for _, payload in listener.received[0]]
        assert b"later" not in received or received.index(b"first") < received.index(b"later")


@pytest.mark.anyio
@pytest.mark.parametrize("count", [999, 1_000, 1_001])
async def test_expired_publishes_empty_queue(server: PrivateRedis, count: int) -> None:
    """Expired publishes fail in groups of a thousand."""
    async with two_nodes(server.url, LAYOUT) as (sender, _):
        server.kill()
        await sender.until(lambda: sender.states[-1] == "degraded")
        futures = [sender.broker.publish(0, "t", b"", history=HISTORY, deadline_s=0.1) for _ in range(count)]
        await asyncio.gather(*futures, return_exceptions=True)
        publisher = sender.broker._node.publisher  # type: ignore[union-attr]
        assert (publisher._queue.waiting_bytes, publisher._unanswered) == (0, {})


@pytest.mark.anyio
async def test_resent_batch_is_stored_once(
    server: PrivateRedis,
) -> None:
    """This also holds if other publishes expired between its messages."""
    async with two_nodes(server.url + "?dead_s=120s", LAYOUT) as (sender, listener):
        publish = partial(sender.broker.publish, 0, "t", history=HISTORY)
        server.freeze()
        try:
            kept = [publish(b"first", deadline_s=HANG_S)]
            on_its_way = asyncio.Event()
            asyncio.get_running_loop().call_soon(on_its_way.set)
            await on_its_way.wait()  # the others wait for the reply to it
            kept.append(publish(b"a", deadline_s=HANG_S))
            late = [publish(b"late", deadline_s=0.1) for _ in range(1_023)]
            kept.append(publish(b"b", deadline_s=HANG_S))
            await asyncio.gather(*late, return_exceptions=True)
        finally:
            lose_the_answer_to(b"b", sender)
            server.thaw()
        receipts = await asyncio.gather(*kept)
        await listener.until(lambda: len(listener.received[0]) >= 3)
        heard = [payload for _, payload in listener.received[0] if payload != b"late"]
        assert heard == [b"first", b"a", b"b"]
        offsets = [receipt.offset or 0 for receipt in receipts]
        assert offsets == sorted(set(offsets))


def lose_the_answer_to(payload: bytes, node: Node) -> None:
    """Cut the connection once, when the reply to the batch with this message arrives, and lose the reply."""
    publisher = node.broker._node.publisher  # type: ignore[union-attr]
    answered = publisher._on_reply

    def lose(commands: Commands, batch: Any, sent: tuple[Any, ...], answer: Any) -> None:
        if any(item.payload == payload for item in sent) and not isinstance(answer, Lost):
            publisher._on_reply = answered  # type: ignore[method-assign]
            commands.abort()
        else:
            answered(commands, batch, sent, answer)

    publisher._on_reply = lose  # type: ignore[method-assign]


@pytest.mark.anyio
async def test_many_expired_publishes_do_not_block_loop(server: PrivateRedis) -> None:
    async with two_nodes(server.url, LAYOUT) as (sender, _):
        server.kill()
        await sender.until(lambda: sender.states[-1] == "degraded")
        futures = [sender.broker.publish(0, "t", b"", history=HISTORY, deadline_s=0.1) for _ in range(5_000)]
        turns = set()

        def count(done: int) -> None:
            turns.add(done)
            if done < len(futures):
                loop.call_soon(lambda: count(sum(future.done() for future in futures)))

        loop = asyncio.get_running_loop()
        count(0)
        assert {type(answer) for answer in await asyncio.gather(*futures, return_exceptions=True)} == {
            BrokerUnavailable
        }
        assert len(turns) > 4, "not all in one"
