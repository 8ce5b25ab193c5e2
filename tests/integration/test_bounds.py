"""Every request of a client has a bounded cost. `docs/explanation/limits.md` lists the bounds."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import ANY

import pytest
from support.apps import chat
from support.cost import cpu_time, memory
from support.raw_client import TEXT, RawClient
from support.resume import connect, receive_replay, slow_node
from support.servers import Client, Server, serve

from dws_core import Limits, WebSocketManager

OURS = "dws_core.server:WebSocketProtocol"


async def test_message_to_too_many_recipients_is_refused() -> None:
    manager, app = chat(limits=Limits(recipients=3))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        answer = await client.exchange(type="send_by_conn_id", conn_id=["a", "b", "c", "d"], data=1, id=1)
        assert (answer["code"], answer["temporary"], manager.stats().published) == ("too-many-recipients", False, 0)
        answer = await client.exchange(type="send_by_conn_id", conn_id=["b", "c", "d", "d", "b"], data=1, id=2)
        assert (answer["type"], manager.stats().published) == ("ack", 3)


async def test_each_recipient_counts_against_rate() -> None:
    manager, app = chat(limits=Limits(messages_per_s=0.001, burst=10))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        recipients = ["b", "c", "d", "e"]
        for number in range(2):
            answer = await client.exchange(type="send_by_conn_id", conn_id=recipients, data=1, id=number)
            assert answer["type"] == "ack"
        answer = await client.exchange(type="send_by_conn_id", conn_id=recipients, data=1, id=2)
        assert (answer["code"], answer["temporary"]) == ("rate-limited", True)
        assert answer["retry_in_s"] > 0
        assert manager.stats().published == 8


async def test_more_recipients_than_burst_are_possible() -> None:
    _, app = chat(limits=Limits(messages_per_s=0.001, burst=3, recipients=9))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        answer = await client.exchange(type="send_by_conn_id", conn_id=list("bcdefg"), data=1, id=1)
        assert answer["type"] == "ack"
        assert (await client.exchange(type="ping", id=2))["code"] == "rate-limited"


async def test_recipients_share_one_payload() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        recipients = [f"nobody-{number}" for number in range(100)]
        await client.exchange(type="ping")
        with memory() as cost:
            answer = await client.exchange(type="send_by_conn_id", conn_id=recipients, data="x" * 50_000, id=1)
            assert answer["type"] == "ack"
        assert manager.stats().published == 100
        assert cost.kept_bytes < 1_000_000  # 100 copies have 5,000,000


@pytest.mark.parametrize("cached", [True, False], ids=["from-cache", "from-broker"])
async def test_history_reply_has_byte_limit(cached: bool) -> None:
    """The reply does not depend on where the messages come from. Who asks for more never receives less."""
    broker, _, app = slow_node("bytes", limits=Limits(history_bytes=100_000))
    _, manager, first = slow_node("bytes")
    async with serve(first), AsyncExitStack() as stack:
        if cached:
            server = await stack.enter_async_context(serve(app))
        for number in range(40):
            await manager.publish("t", f"{number:02}" + "x" * 10_000)
            await manager.publish("other", "x" * 10_000)
        if not cached:
            server = await stack.enter_async_context(serve(app))
        client = await stack.enter_async_context(Client.open(f"{server.url}/ws/a"))
        for limit, expected in ((3, 3), (9, 9), (10, 9), (11, 9), (40, 9), (41, 9), (300, 9)):
            answer = await client.exchange(type="history", topic="t", limit=limit, id=1)
            numbers = [int(message["data"][:2]) for message in answer["messages"]]
            assert numbers == list(range(40 - expected, 40)), limit
        assert bool(broker.reads) is not cached


async def test_history_bytes_count_against_rate() -> None:
    manager, app = chat(limits=Limits(messages_per_s=0.001, burst=12))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await manager.publish("t", "x" * 300_000)
        for number in range(2):
            answer = await client.exchange(type="history", topic="t", limit=1, id=number)
            assert len(answer["messages"]) == 1
        assert (await client.exchange(type="history", topic="t", limit=1, id=2))["messages"] == [ANY]
        assert (await client.exchange(type="history", topic="t", limit=1, id=3))["code"] == "rate-limited"


async def test_unread_history_replies_are_not_built() -> None:
    """Each request waits until the client has read the earlier replies."""
    manager, app = chat()
    async with serve(app, ws=OURS) as server, RawClient.open(f"{server.url}/ws/a", receive_buffer=4096) as client:
        for number in range(30):
            await manager.publish("t", f"{number}" + "x" * 60_000)
        request = json.dumps({"type": "history", "topic": "t", "limit": 30}).encode()
        with memory() as cost:
            for _ in range(40):
                client.send(TEXT, request)
            await answered_ping(server)
        assert cost.peak_bytes < 15_000_000  # 40 replies of 1 MB have 40,000,000


async def test_full_inbox_lets_other_clients_continue() -> None:
    """A request of another client is answered before the queued ones."""
    manager, app = chat(limits=Limits(messages_per_s=None, inbox_messages=5_000))
    handled = 0
    async with serve(app) as server, Client.open(f"{server.url}/ws/a"):
        (connection,) = manager.active_connections
        for _ in range(5_000):
            connection._inbox.put({"type": "unsubscribe", "topic": "t"})
        async with Client.open(f"{server.url}/ws/b") as other:
            await other.exchange(type="ping")
            handled = 5_000 - len(connection._inbox._queue)
    assert handled < 5_000


async def recent_topics(manager: WebSocketManager, count: int) -> None:
    for number in range(count):
        manager.publish(f"user/{number}/inbox/x", number)
        if number % 500 == 0:
            await asyncio.sleep(0)


async def test_resume_costs_what_it_delivers() -> None:
    """A client with many filters resumes among many topics. Another one is served in between."""
    manager, app = chat()
    async with serve(app) as server, AsyncExitStack() as stack:
        me, other = [await stack.enter_async_context(Client.open(f"{server.url}/ws/{name}")) for name in "ab"]
        cursor = (await connect(other))["cursor"]
        await recent_topics(manager, 20_000)
        filters = [f"user/{number}/+/x" for number in range(60)] + [f"+/{number}/nothing/+" for number in range(60)]
        with cpu_time() as cost:
            assert (await connect(me, *filters, cursor=cursor))["recovered"] is True
            assert await receive_replay(me) == list(range(60))
        assert cost.cpu_s < 2.0  # comparing each topic with each filter takes more than 5 s


async def test_many_clients_resume_on_new_node_together() -> None:
    """After a deployment, clients with different filters resume from the broker. They share its reads."""
    _, manager, first = slow_node("deployment")
    broker, _, second = slow_node("deployment")
    async with serve(first) as old:
        async with Client.open(f"{old.url}/ws/a") as client:
            cursor = (await connect(client))["cursor"]
        await recent_topics(manager, 10_000)
        async with serve(second) as new, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client.open(f"{new.url}/ws/{n}")) for n in range(30)]
            with cpu_time() as cost:
                async with asyncio.TaskGroup() as group:
                    for number, client in enumerate(clients):
                        filters = [f"user/{number}/{rest}" for rest in ("#", "+/x", "inbox/+")]
                        group.create_task(connect(client, *filters, cursor=cursor))
                for number, client in enumerate(clients):
                    assert await receive_replay(client) == [number]
            assert cost.cpu_s < 1.5
            assert len(broker.reads) < 10


DEEP = "/".join("+a" if number % 2 else "a" for number in range(32)).replace("+a", "+")
WORST: dict[str, dict[str, Any]] = {
    "connect": {"data": {"filters": [f"{number}/{DEEP[4:]}" for number in range(128)], "cursor": "0:e:1"}},
    "subscribe": {"topic": DEEP},
    "unsubscribe": {"topic": "x/" * 30_000},
    "send": {"topic": "t", "data": [[]] * 15_000},
    "broadcast": {"data": [1e308] * 8_000},
    "send_by_conn_id": {"conn_id": [str(number) for number in range(6_500)], "data": "x" * 10_000},
    "history": {"topic": "full", "limit": 10**9},
    "ping": {"id": "x" * 60_000},
}
"""For each type of request, one that costs as much as possible in 64 KB."""


@pytest.mark.parametrize("kind", WORST)
async def test_every_request_has_bounded_cost(kind: str) -> None:
    """Twenty of the most expensive requests of each type, whether they are answered or refused."""
    manager, app = chat()
    async with serve(app, ws=OURS) as server, Client.open(f"{server.url}/ws/a", max_size=None) as client:
        for _ in range(30):
            await manager.publish("full", "x" * 60_000)
        await client.exchange(type="ping")

        async def requests(count: int) -> None:
            for number in range(count):
                await client.send(**{"type": kind, "id": number, **WORST[kind]})
            await client.send(type="ping", id="end")
            while (await client.receive()).get("id") != "end":
                pass

        with cpu_time() as cost:
            await requests(20)
        assert cost.cpu_s < 2.0
        with memory() as cost:
            await requests(3)
        assert cost.peak_bytes < 30_000_000


async def answered_ping(server: Server) -> None:
    """Wait until the server has processed everything that it has received."""
    async with Client.open(f"{server.url}/ws/ping") as client:
        for _ in range(50):
            await client.exchange(type="ping")
