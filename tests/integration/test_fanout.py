"""Fan-out through real servers, with ready frames and without."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI, WebSocket
from support.apps import chat
from support.raw_client import TEXT, RawClient
from support.servers import HANG_S, Client, serve

from dws_core import Connection, Limits, WebSocketManager

OURS = "dws_core.server:WebSocketProtocol"
BOTH = pytest.mark.parametrize("ws", [OURS, "websockets-sansio"], ids=["ready", "asgi"])


@BOTH
async def test_json_and_msgpack_clients_share_a_topic(ws: str) -> None:
    manager, app = chat()
    async with (
        serve(app, ws=ws) as server,
        Client.open(f"{server.url}/ws/a") as a,
        Client.open(f"{server.url}/ws/b", subprotocols=["dws.v1.msgpack"]) as b,
    ):
        await a.subscribe("t")
        await b.socket.send(msgspec.msgpack.encode({"type": "subscribe", "topic": "t", "id": 1}))
        assert msgspec.msgpack.decode(await b.socket.recv())["type"] == "ack"
        for number in range(20):
            await manager.publish("t", {"n": number, "é": [None, 1.5]})
        for number in range(20):
            data = {"n": number, "é": [None, 1.5]}
            assert (await a.receive())["data"] == data
            assert msgspec.msgpack.decode(await b.socket.recv())["data"] == data


@BOTH
async def test_messages_and_replies_of_one_tick_keep_order(ws: str) -> None:
    manager, app = chat()
    async with serve(app, ws=ws) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("t/+")
        for number in range(500):
            manager.publish(f"t/{number % 7}", number)
        await client.send(type="ping", id="p")
        got = [await client.receive() for _ in range(501)]
        assert [m["data"] for m in got if m["type"] == "message"] == list(range(500))
        assert {"type": "pong", "id": "p"} in got


@BOTH
@pytest.mark.parametrize("size", [100, 10_000, 300_000])
async def test_large_messages_arrive_complete_and_in_order(ws: str, size: int) -> None:
    manager, app = chat()
    async with serve(app, ws=ws) as server, Client.open(f"{server.url}/ws/a", max_size=None) as client:
        await client.subscribe("t")
        for number in range(3):
            await manager.publish("t", f"{number}" + "x" * size)
        for number in range(3):
            assert (await client.receive())["data"] == f"{number}" + "x" * size


async def test_stalled_client_does_not_delay_a_thousand_others() -> None:
    manager, app = chat(limits=Limits(outbox_bytes=300_000, close_timeout_s=0.2))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(app, ws=OURS, backlog=2048, ws_per_message_deflate=False))
        slow = await stack.enter_async_context(RawClient.open(f"{server.url}/ws/slow", receive_buffer=4096))
        await _subscribe(slow, "#")
        (slow_one,) = manager.active_connections
        lost = _on_lost(slow_one)
        others = [await stack.enter_async_context(RawClient.open(f"{server.url}/ws/{n}")) for n in range(1_000)]
        await asyncio.gather(*[_subscribe(client, "t") for client in others])
        number = 0
        while not slow_one.closed:
            await manager.publish("heavy", "x" * 200_000)
            await manager.publish("t", number)
            assert [await _data(client) for client in others] == [number] * 1_000
            number += 1
            assert number < 100, "the slow client is never noticed"
        assert slow_one.close_code == 4000
        assert manager.stats().overflows == 1
        await asyncio.wait_for(lost.wait(), HANG_S)  # there is no room for its close frame, so its socket is dropped
        await manager.publish("t", "after")
        assert [await _data(client) for client in others] == ["after"] * 1_000


def _on_lost(connection: Connection) -> asyncio.Event:
    """Return an event that is set when the server loses a connection's socket."""
    protocol: Any = connection.websocket.scope["extensions"]["dws.frames"]
    lost, tell = asyncio.Event(), protocol.connection_lost

    def connection_lost(error: Exception | None) -> None:
        tell(error)
        lost.set()

    protocol.connection_lost = connection_lost
    return lost


async def _data(client: RawClient) -> Any:
    return json.loads((await client.receive()).payload)["data"]


async def _subscribe(client: RawClient, topic: str = "t") -> None:
    client.send(TEXT, json.dumps({"type": "subscribe", "topic": topic, "id": 1}).encode())
    assert json.loads((await client.receive()).payload)["type"] == "ack"


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest", "keep-latest"])
async def test_slow_consumer_policy_counts_drops(policy: Any) -> None:
    """The connection stays open."""
    manager, app = chat(limits=Limits(outbox_bytes=200_000, slow_consumer=policy))
    async with serve(app, ws=OURS, ws_per_message_deflate=False) as server:
        async with RawClient.open(f"{server.url}/ws/slow", receive_buffer=4096) as client:
            await _subscribe(client)
            published = 0
            while manager.stats().dropped < 10:
                await manager.publish("t", {"n": published, "pad": "x" * 4_000})
                published += 1
                assert published < 5_000, "nothing is dropped"
            last = manager.publish("t", {"n": "last", "pad": "x" * 4_000})
            client.send(TEXT, b'{"type":"ping","id":"end"}')
            await last
            got: list[Any] = []
            while not got or got[-1].get("id") != "end":
                got.append(json.loads((await client.receive()).payload))
            numbers = [message["data"]["n"] for message in got if message["type"] == "message"]
            if policy == "drop-newest":
                assert "last" not in numbers
            else:
                assert numbers.pop() == "last"
            assert numbers == sorted(set(numbers))
            assert published + 1 - len([m for m in got if m["type"] == "message"]) == manager.stats().dropped
            assert manager.active_connections != []


async def test_connection_may_have_its_own_policy() -> None:
    manager = WebSocketManager("chat", broker_url="memory://", limits=Limits(outbox_bytes=200_000))
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/ws")
    async def serve_one(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "cursor", slow_consumer="keep-latest") as connection:
            async for message in connection:
                await manager.receive(connection, message)

    async with serve(app, ws=OURS, ws_per_message_deflate=False) as server:
        async with RawClient.open(f"{server.url}/ws", receive_buffer=4096) as client:
            await _subscribe(client)
            while manager.stats().dropped == 0:
                await manager.publish("t", "x" * 4_000)
            assert len(manager) == 1


@BOTH
async def test_ready_frames_are_reported_in_stats_and_log(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    manager, app = chat()
    with caplog.at_level("INFO", "dws"):
        async with serve(app, ws=ws) as server, Client.open(f"{server.url}/ws/a") as client:
            await client.subscribe("t")
            stats = manager.stats()
            assert (stats.connections, stats.filters, stats.ready_connections) == (1, 1, int(ws == OURS))
    lines = [record.getMessage() for record in caplog.records if "ready frames" in record.getMessage()]
    assert len(lines) == 1
    assert ("dws_core.server:WebSocketProtocol" in lines[0]) == (ws != OURS), "the slower way names the faster one"


async def test_thousand_messages_of_one_tick_need_few_writes() -> None:
    manager, app = chat()
    async with serve(app, ws=OURS) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("t")
        (connection,) = manager.active_connections
        writes = 0
        write = connection._outbox.write

        def counting(data: bytes) -> None:
            nonlocal writes
            writes += 1
            write(data)

        connection._outbox.write = counting
        receipts = [manager.publish("t", number) for number in range(1_000)]
        for receipt in receipts:
            await receipt
        for number in range(1_000):
            assert (await client.receive())["data"] == number
        assert writes <= 20
        await asyncio.wait_for(connection.send_json("end"), HANG_S)
        assert await client.receive() == "end"


@BOTH
async def test_message_path_creates_no_task(ws: str) -> None:
    manager, app = chat()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(app, ws=ws))
        ann, bo = [await stack.enter_async_context(Client.open(f"{server.url}/ws/{name}")) for name in ("ann", "bo")]
        for client in (ann, bo):
            await client.subscribe("t")
        created: list[str] = []
        loop = asyncio.get_running_loop()

        def noting(loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
            if not {"_node", "dws_memory"}.isdisjoint(Path(coroutine.cr_code.co_filename).parts):
                created.append(coroutine.__qualname__)
            return asyncio.Task(coroutine, loop=loop, **kwargs)

        loop.set_task_factory(noting)
        try:
            for number in range(50):
                await ann.send(type="send", topic="t", data=number, id=number)
                assert {(await ann.receive())["type"] for _ in range(2)} == {"message", "ack"}
                assert (await bo.receive())["data"] == number
                await manager.publish("t", "from a route")
                await manager.broadcast("to all")
                for client in (ann, bo):
                    assert [(await client.receive())["data"] for _ in range(2)] == ["from a route", "to all"]
            assert created == []
            async with Client.open(f"{server.url}/ws/cem") as client:
                await client.subscribe("t")
            assert created, "a connection is read by a task of ours: the test sees them"
        finally:
            loop.set_task_factory(None)
