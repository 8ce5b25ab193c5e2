"""What `docs/explanation/guarantees.md` says and no other test shows so plainly."""

from __future__ import annotations

from support.apps import chat, chat_app
from support.log_brokers import PlainBroker
from support.resume import hello, missed, slow
from support.servers import Client, serve

from dws_core import WebSocketManager


async def test_without_a_cursor_a_client_starts_with_what_is_new() -> None:
    manager, app = chat()
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            await hello(client, "t")
        await manager.publish("t", "missed")
        async with Client.open(f"{server.url}/ws/me") as client:
            await hello(client, "t")
            await manager.publish("t", "new")
            assert (await client.receive())["data"] == "new"


async def test_what_came_before_the_answer_to_connect_comes_again_where_the_cursor_lies_before_it() -> None:
    manager, app = chat()
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await hello(client, "t"))["cursor"]
        async with Client.open(f"{server.url}/ws/me") as client:
            await manager.broadcast("early")  # reaches every connection, also one that has not asked for anything yet
            assert (await client.receive())["data"] == "early"
            assert (await hello(client, "t", cursor=cursor))["recovered"] is True
            assert await missed(client) == ["early"]


async def test_a_memory_log_is_gone_with_its_process_and_clients_are_told() -> None:
    async with serve(chat()[1]) as server, Client.open(f"{server.url}/ws/me") as client:
        cursor = (await hello(client, "t"))["cursor"]
    async with serve(chat()[1]) as server, Client.open(f"{server.url}/ws/me") as client:
        assert (await hello(client, "t", cursor=cursor))["recovered"] is False
        assert (await client.receive())["reason"] == "epoch"


async def test_a_broker_without_a_log_delivers_a_repeated_key_again() -> None:
    manager = WebSocketManager("chat", broker=PlainBroker())
    async with serve(chat_app(manager)) as server, Client.open(f"{server.url}/ws/me") as client:
        await client.subscribe("t")
        for data in ("first", "again"):
            await manager.publish("t", data, key="k")
        assert [(await client.receive())["data"] for _ in range(2)] == ["first", "again"]


async def test_what_came_before_a_gap_may_come_again_behind_it() -> None:
    """The node that the client comes to is behind, and cannot ask whether the log is."""
    _, manager, first = slow("again")
    broker, _, second = slow("again")
    async with serve(first) as a, serve(second) as b:
        broker.sink.shut()
        async with Client.open(f"{a.url}/ws/me") as client:
            await hello(client, "t")
            await manager.publish("t", "once more")
            cursor = (await client.receive())["pos"]
        broker.away = True
        async with Client.open(f"{b.url}/ws/me") as client:
            assert (await hello(client, "t", cursor=cursor))["recovered"] is False
            assert (await client.receive())["reason"] == "unavailable"
            broker.sink.let_through()
            assert (await client.receive())["data"] == "once more"
