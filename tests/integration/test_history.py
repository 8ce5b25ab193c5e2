"""What is kept of a topic, and how clients and applications read it."""

from __future__ import annotations

import asyncio

import pytest
from support.apps import chat
from support.log_brokers import PlainBroker
from support.resume import hello, missed, slow
from support.servers import Client, serve

from dws_core import (
    BrokerClosed,
    BrokerUnavailable,
    ConfigurationError,
    History,
    InvalidFilter,
    InvalidTopic,
    StoredMessage,
    WebSocketManager,
)


async def test_history_gives_the_last_messages_oldest_first() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        receipts = [(await manager.publish(f"t/{n % 2}", n))[0] for n in range(10)]
        answer = await client.ask(type="history", topic="t/1", limit=3, id="h")
        position = [f"0:{receipt.epoch}:{receipt.offset}" for receipt in receipts]
        messages = [{"data": n, "pos": position[n]} for n in (5, 7, 9)]
        assert answer == {
            "type": "history", "id": "h", "topic": "t/1", "messages": messages, "cursor": position[9],
        }  # fmt: skip
        assert len((await client.ask(type="history", topic="t/1", limit=99, id=1))["messages"]) == 5
        assert (await client.ask(type="history", topic="never", limit=9, id=1))["messages"] == []


async def test_history_reaches_back_before_the_node_was_started_and_over_what_was_trimmed() -> None:
    broker, _, app = slow("past")
    _, manager, first = slow("past")
    async with serve(first):
        for n in range(400):  # the history of a topic has 300
            await manager.publish("t", n)
        async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
            answer = await client.ask(type="history", topic="t", limit=350, id=1)
            assert [message["data"] for message in answer["messages"]] == list(range(100, 400))
            assert len(broker.reads) < 20
            answer = await client.ask(type="history", topic="t", limit=2, id=1)
            assert [message["data"] for message in answer["messages"]] == [398, 399]
            broker.away = True
            error = await client.ask(type="history", topic="t", limit=2, id=1)
            assert (error["code"], error["temporary"]) == ("unavailable", True)


async def test_history_asks_for_leave() -> None:
    def authorize(principal: object, action: str, subject: str) -> bool:
        return action != "history"

    _, app = chat(authorize=authorize)
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        assert (await client.ask(type="history", topic="t", limit=2, id=1))["code"] == "forbidden"


# -- the policy


async def test_topics_without_history_carry_no_pos_and_are_not_recovered() -> None:
    manager, app = chat(history={"cursor/#": History.none()})
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await hello(client, "cursor/+", "chat/+"))["cursor"]
            await manager.publish("cursor/ann", 1)
            assert await client.receive() == {"type": "message", "topic": "cursor/ann", "data": 1}
        assert [receipt.offset for receipt in await manager.publish("cursor/ann", 2)] == [None]
        await manager.publish("chat/lobby", "kept")
        async with Client.open(f"{server.url}/ws/me") as client:
            assert (await hello(client, "cursor/+", "chat/+", cursor=cursor))["recovered"] is True
            assert await missed(client) == ["kept"]
        assert await manager.history("cursor/ann") == []


async def test_a_topic_keeps_as_many_messages_as_its_history_says_whoever_is_asked() -> None:
    broker, manager, app = slow(history={"short": History(size=3)})
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        for number in range(10):
            await manager.publish("short", number)
            await manager.publish("long", number)
        answer = await client.ask(type="history", topic="short", limit=100, id=1)
        assert [message["data"] for message in answer["messages"]] == [7, 8, 9]
        assert [message.data for message in await manager.history("short")] == [7, 8, 9]
        assert len(await manager.history("long")) == 10
        assert not broker.reads or all("short" not in read.topics for read in broker.reads)


async def test_what_is_kept_for_a_short_time_is_asked_of_the_broker_which_knows_the_time() -> None:
    broker, manager, app = slow(history={"secret": History(ttl_s=0.05)})
    async with serve(app):
        await manager.publish("secret", "gone soon")
        async with asyncio.timeout(5):
            while await manager.history("secret"):
                await manager.publish("other", "meanwhile")
        assert broker.reads


@pytest.mark.parametrize(("missed_messages", "recovered"), [(2, True), (3, False)])
async def test_a_client_behind_a_short_history_gets_the_same_answer_from_every_node(
    missed_messages: int, recovered: bool
) -> None:
    """The first node remembers more than the broker keeps, the second nothing."""
    manager, first = chat("memory://short", history={"t": History(size=2)})
    _, second = chat("memory://short", history={"t": History(size=2)})
    async with serve(first) as a:
        async with Client.open(f"{a.url}/ws/me") as client:
            cursor = (await hello(client, "t"))["cursor"]
        for number in range(missed_messages):
            await manager.publish("t", number)
        async with serve(second) as b:
            for server in (a, b):
                async with Client.open(f"{server.url}/ws/me") as client:
                    assert (await hello(client, "t", cursor=cursor))["recovered"] is recovered
                    if recovered:
                        assert await missed(client) == [0, 1]
                    else:
                        assert (await client.receive())["reason"] == "trimmed"


async def test_a_client_that_comes_back_after_the_ttl_is_told_so_by_a_node_that_still_remembers() -> None:
    manager, app = chat(history={"t": History(ttl_s=0.02)})
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await hello(client, "t"))["cursor"]
        await manager.publish("t", "gone soon")
        recovered, reason = True, ""
        async with asyncio.timeout(5):  # a node remembers for a minute
            while recovered:
                async with Client.open(f"{server.url}/ws/me") as client:
                    recovered = (await hello(client, "t", cursor=cursor))["recovered"]
                    reason = (await client.receive()).get("reason", "")
        assert reason == "trimmed"


def test_a_rule_that_is_no_filter_is_refused_at_once() -> None:
    with pytest.raises(InvalidFilter, match="chat/#/x"):
        WebSocketManager("chat", broker_url="memory://", history={"chat/#/x": History()})


# -- for applications


async def test_an_application_reads_the_history_of_a_topic() -> None:
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


async def test_a_broker_without_a_log_says_that_it_keeps_nothing() -> None:
    async with WebSocketManager("chat", broker=PlainBroker()) as manager:
        with pytest.raises(BrokerUnavailable, match="keeps no history"):
            await manager.history("t")
