"""The history of topics, and how clients and applications read it."""

from __future__ import annotations

import asyncio

import pytest
from support.apps import chat
from support.log_brokers import PlainBroker
from support.resume import connect, receive_replay, slow_node
from support.servers import Client, serve
from support.streams import QuietStreamBroker
from support.timeouts import HANG_S

from dws_core import (
    BrokerClosed,
    BrokerUnavailable,
    ConfigurationError,
    History,
    InvalidFilter,
    InvalidTopic,
    StoredMessage,
    StoredMessages,
    WebSocketManager,
)
from dws_core.plugin import BrokerURL


async def test_history_returns_last_messages_oldest_first() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        receipts = [(await manager.publish(f"t/{n % 2}", n))[0] for n in range(10)]
        answer = await client.exchange(type="history", topic="t/1", limit=3, id="h")
        position = [f"0:{receipt.epoch}:{receipt.offset}" for receipt in receipts]
        messages = [{"data": n, "pos": position[n]} for n in (5, 7, 9)]
        assert answer == {
            "type": "history", "id": "h", "topic": "t/1", "messages": messages, "cursor": position[9],
        }  # fmt: skip
        assert len((await client.exchange(type="history", topic="t/1", limit=99, id=1))["messages"]) == 5
        assert (await client.exchange(type="history", topic="never", limit=9, id=1))["messages"] == []


async def test_history_includes_messages_before_node_start() -> None:
    """The search also works if the broker has trimmed older messages."""
    broker, _, app = slow_node("past")
    _, manager, first = slow_node("past")
    async with serve(first):
        for n in range(400):  # the history of a topic has 300
            await manager.publish("t", n)
        async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
            answer = await client.exchange(type="history", topic="t", limit=350, id=1)
            assert [message["data"] for message in answer["messages"]] == list(range(100, 400))
            assert len(broker.reads) < 20
            answer = await client.exchange(type="history", topic="t", limit=2, id=1)
            assert [message["data"] for message in answer["messages"]] == [398, 399]
            broker.unavailable = True
            error = await client.exchange(type="history", topic="t", limit=2, id=1)
            assert (error["code"], error["temporary"]) == ("unavailable", True)


async def test_history_requires_authorization() -> None:
    def authorize(principal: object, action: str, subject: str) -> bool:
        return action != "history"

    _, app = chat(authorize=authorize)
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        assert (await client.exchange(type="history", topic="t", limit=2, id=1))["code"] == "forbidden"


@pytest.mark.parametrize("count", [3, 0])
async def test_client_continues_from_cursor_of_history(count: int) -> None:
    manager, app = chat()
    async with serve(app) as server:
        for number in range(count):
            await manager.publish("t", number)
        stored = await manager.history("t", limit=2)
        assert isinstance(stored, StoredMessages)
        assert [message.data for message in stored] == [*range(count)][-2:]
        assert stored.skipped == 0
        await manager.publish("t", "later")
        async with Client.open(f"{server.url}/ws/me") as client:
            assert (await connect(client, "t", cursor=stored.cursor))["recovered"] is True
            assert await receive_replay(client) == ["later"]


async def test_receipt_has_position_of_message() -> None:
    manager, app = chat(history={"$conn/#": History.none()})
    async with serve(app):
        (receipt,) = await manager.publish("t", 1, key="k")
        (repeated,) = await manager.publish("t", 1, key="k")
        (stored,) = await manager.history("t")
        assert receipt.pos == stored.pos == repeated.pos
        assert repeated.duplicate
        assert [receipt.pos for receipt in await manager.send_to(["a", "b"], 1)] == [None, None]
        (receipt,) = await manager.broadcast(1)
        assert receipt.pos is not None


# -- the policy


async def test_topic_without_history_has_no_position() -> None:
    """Its messages are not recovered."""
    manager, app = chat(history={"cursor/#": History.none()})
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await connect(client, "cursor/+", "chat/+"))["cursor"]
            await manager.publish("cursor/ann", 1)
            assert await client.receive() == {"type": "message", "topic": "cursor/ann", "data": 1}
        assert [receipt.offset for receipt in await manager.publish("cursor/ann", 2)] == [None]
        await manager.publish("chat/lobby", "kept")
        async with Client.open(f"{server.url}/ws/me") as client:
            assert (await connect(client, "cursor/+", "chat/+", cursor=cursor))["recovered"] is True
            assert await receive_replay(client) == ["kept"]
        assert await manager.history("cursor/ann") == []


async def test_history_size_applies_on_every_node() -> None:
    broker, manager, app = slow_node(history={"short": History(size=3)})
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        for number in range(10):
            await manager.publish("short", number)
            await manager.publish("long", number)
        answer = await client.exchange(type="history", topic="short", limit=100, id=1)
        assert [message["data"] for message in answer["messages"]] == [7, 8, 9]
        assert [message.data for message in await manager.history("short")] == [7, 8, 9]
        assert len(await manager.history("long")) == 10
        assert not broker.reads or all("short" not in read.topics for read in broker.reads)


async def test_short_ttl_history_is_read_from_broker() -> None:
    broker, manager, app = slow_node(history={"secret": History(ttl_s=0.05)})
    async with serve(app):
        await manager.publish("secret", "gone soon")
        async with asyncio.timeout(HANG_S):
            while await manager.history("secret"):
                await manager.publish("other", "meanwhile")
        assert broker.reads


@pytest.mark.parametrize(("missed_messages", "recovered"), [(2, True), (3, False)])
async def test_short_history_gives_same_answer_on_every_node(missed_messages: int, recovered: bool) -> None:
    """The cache of the first node holds more than the broker keeps. The cache of the second node is empty."""
    manager, first = chat("memory://short", history={"t": History(size=2)})
    _, second = chat("memory://short", history={"t": History(size=2)})
    async with serve(first) as a:
        async with Client.open(f"{a.url}/ws/me") as client:
            cursor = (await connect(client, "t"))["cursor"]
        for number in range(missed_messages):
            await manager.publish("t", number)
        async with serve(second) as b:
            for server in (a, b):
                async with Client.open(f"{server.url}/ws/me") as client:
                    assert (await connect(client, "t", cursor=cursor))["recovered"] is recovered
                    if recovered:
                        assert await receive_replay(client) == [0, 1]
                    else:
                        assert (await client.receive())["reason"] == "trimmed"


async def test_expired_history_is_gap_despite_node_cache() -> None:
    manager, app = chat(history={"t": History(ttl_s=0.02)})
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await connect(client, "t"))["cursor"]
        await manager.publish("t", "gone soon")
        recovered, reason = True, ""
        async with asyncio.timeout(HANG_S):  # a node caches records for a minute
            while recovered:
                async with Client.open(f"{server.url}/ws/me") as client:
                    recovered = (await connect(client, "t", cursor=cursor))["recovered"]
                    reason = (await client.receive()).get("reason", "")
        assert reason == "trimmed"


def test_invalid_history_filter_is_rejected() -> None:
    with pytest.raises(InvalidFilter, match="chat/#/x"):
        WebSocketManager("chat", broker_url="memory://", history={"chat/#/x": History()})


# -- for applications


async def test_application_reads_history() -> None:
    manager, app = chat()
    async with serve(app):
        receipts = [(await manager.publish("t", {"n": number}))[0] for number in range(5)]
        expected = [
            StoredMessage(topic="t", data={"n": number}, pos=f"0:{receipts[number].epoch}:{receipts[number].offset}")
            for number in (3, 4)
        ]
        assert await manager.history("t", limit=2) == expected
        assert await manager.history("never") == []
        with pytest.raises(InvalidTopic):
            await manager.history("t/+")
        with pytest.raises(ConfigurationError, match="positive"):
            await manager.history("t", limit=0)
    with pytest.raises(BrokerClosed, match="not started"):
        await manager.history("t")


async def test_broker_without_log_has_no_history() -> None:
    async with WebSocketManager("chat", broker=PlainBroker()) as manager:
        with pytest.raises(BrokerUnavailable, match="keeps no history"):
            await manager.history("t")


async def test_history_after_quiet_time_is_complete() -> None:
    """After the last record, a stream contains the probes of its nodes. A node that starts then reads the stream."""
    url = BrokerURL.parse("memstream://quiet-time")
    first = WebSocketManager("chat", broker=(broker := QuietStreamBroker.from_url(url)))
    second = WebSocketManager("chat", broker=QuietStreamBroker.from_url(url))
    async with first:
        for number in range(3):
            await first.publish("t", number)
        for _ in range(5):
            await broker.heads([0])
        async with second:
            assert [message.data for message in await second.history("t")] == [0, 1, 2]
            assert await second.history("other") == []
