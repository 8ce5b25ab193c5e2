"""Guarantees of `docs/explanation/guarantees.md` that no other test shows as clearly."""

from __future__ import annotations

from support.apps import chat, chat_app
from support.log_brokers import PlainBroker
from support.resume import connect, receive_replay, slow_node
from support.servers import Client, serve

from dws_core import WebSocketManager


async def test_client_without_cursor_receives_only_new_messages() -> None:
    manager, app = chat()
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            await connect(client, "t")
        await manager.publish("t", "missed")
        async with Client.open(f"{server.url}/ws/me") as client:
            await connect(client, "t")
            await manager.publish("t", "new")
            assert (await client.receive())["data"] == "new"


async def test_message_before_connected_reply_may_repeat() -> None:
    """It is repeated if the cursor is older than the message."""
    manager, app = chat()
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/me") as client:
            cursor = (await connect(client, "t"))["cursor"]
        async with Client.open(f"{server.url}/ws/me") as client:
            await manager.broadcast("early")  # reaches every connection, also before its `connect`
            assert (await client.receive())["data"] == "early"
            assert (await connect(client, "t", cursor=cursor))["recovered"] is True
            assert await receive_replay(client) == ["early"]


async def test_lost_memory_log_is_gap() -> None:
    async with serve(chat()[1]) as server, Client.open(f"{server.url}/ws/me") as client:
        cursor = (await connect(client, "t"))["cursor"]
    async with serve(chat()[1]) as server, Client.open(f"{server.url}/ws/me") as client:
        assert (await connect(client, "t", cursor=cursor))["recovered"] is False
        assert (await client.receive())["reason"] == "epoch"


async def test_broker_without_log_delivers_repeated_key_again() -> None:
    manager = WebSocketManager("chat", broker=PlainBroker())
    async with serve(chat_app(manager)) as server, Client.open(f"{server.url}/ws/me") as client:
        await client.subscribe("t")
        for data in ("first", "again"):
            await manager.publish("t", data, key="k")
        assert [(await client.receive())["data"] for _ in range(2)] == ["first", "again"]


async def test_message_before_gap_may_repeat() -> None:
    """The node that the client reconnects to lags behind the first one, and cannot resume the cursor."""
    _, manager, first = slow_node("again")
    broker, _, second = slow_node("again")
    async with serve(first) as a, serve(second) as b:
        broker.sink.close_gate()
        async with Client.open(f"{a.url}/ws/me") as client:
            await connect(client, "t")
            await manager.publish("t", "once more")
            cursor = (await client.receive())["pos"]
        async with Client.open(f"{b.url}/ws/me") as client:
            assert (await connect(client, "t", cursor=f"{cursor},7:gone:0"))["recovered"] is False
            assert (await client.receive())["reason"] == "layout-changed"
            broker.sink.open_gate()
            assert (await client.receive())["data"] == "once more"
