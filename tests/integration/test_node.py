"""One node or two nodes, with real sockets."""

from __future__ import annotations

from typing import Any

import httpx2
import msgspec
import pytest
from fastapi import Depends, FastAPI, WebSocket
from support.apps import chat, chat_app
from support.servers import Client, serve

from dws_core import Message, Principal, WebSocketManager
from dws_core.testing import FakeWebSocket


async def test_message_reaches_subscribers_on_both_nodes() -> None:
    _, first = chat("memory://two-nodes")
    _, second = chat("memory://two-nodes")
    async with serve(first) as a, serve(second) as b, Client.open(f"{a.url}/ws/a") as alice:
        async with Client.open(f"{b.url}/ws/b") as bob:
            await alice.subscribe("chat/#")
            await bob.subscribe("chat/+")
            assert (await bob.exchange(type="send", topic="chat/1", data={"n": 1}))["data"] == {"n": 1}
            got = await alice.receive()
    assert (got["type"], got["topic"], got["data"]) == ("message", "chat/1", {"n": 1})
    assert got["pos"].split(":")[0] == "0"


async def test_unsubscribe_stops_delivery() -> None:
    _, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("secret")
        await client.subscribe("open")
        assert (await client.exchange(type="unsubscribe", topic="secret", id=1)) == {"type": "ack", "id": 1}
        await client.send(type="send", topic="secret", data="no")
        assert (await client.exchange(type="send", topic="open", data="yes"))["data"] == "yes"


async def test_broadcast_and_direct_messages_cross_nodes() -> None:
    one, first = chat("memory://direct")
    _, second = chat("memory://direct")
    async with serve(first) as a, serve(second) as b, Client.open(f"{a.url}/ws/a") as alice:
        async with Client.open(f"{b.url}/ws/b%20b") as bob:
            await alice.send(type="broadcast", data="all")
            for client in (alice, bob):
                got = await client.receive()
                assert (got["data"], "topic" in got, "conn_id" in got) == ("all", False, False)
            await alice.send(type="send_by_conn_id", conn_id=["b b", "nobody"], data="you")
            got = await bob.receive()
            assert (got["data"], got["conn_id"]) == ("you", "b b")
            await one.send_to("b b", "from the node")
            assert (await bob.receive())["data"] == "from the node"


async def test_direct_message_reaches_all_connections_of_id() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as phone:
        async with Client.open(f"{server.url}/ws/me") as laptop:
            await phone.exchange(type="ping")
            await laptop.exchange(type="ping")
            await manager.send_to("me", 1)
            assert (await phone.receive())["data"] == (await laptop.receive())["data"] == 1


async def test_http_route_publishes() -> None:
    _, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("chat/lobby")
        async with httpx2.AsyncClient() as http:
            response = await http.post(f"{server.http_url}/announce", params={"text": "hi"})
        assert response.status_code == 200
        assert (await client.receive())["data"] == {"text": "hi"}


async def test_original_methods_work_with_and_without_await() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("t")
        message = Message(data={"n": 0}, typ="send", topic="t", conn_id="a")
        for call in (manager.broadcast, manager.send, manager.send_by_conn_id, manager.send_msg):
            call(message)
            assert (await client.receive())["data"] == {"n": 0}
            await call(message)
            assert (await client.receive())["data"] == {"n": 0}
        manager.broadcast({"plain": True})
        assert (await client.receive())["data"] == {"plain": True}
        connection = manager.active_connections[0]
        manager.set_conn_id(connection, "b")
        assert await client.receive() == {"type": "set_conn_id", "conn_id": "b"}
        await manager.set_conn_id(connection, "c")
        assert await client.receive() == {"type": "set_conn_id", "conn_id": "c"}
        await manager.send_to("c", "renamed")
        assert (await client.receive())["data"] == "renamed"
        await manager.remove_connection(connection)
        manager.remove_connection(connection)
        assert manager.active_connections == []


async def test_msgpack_and_json_clients_share_a_topic() -> None:
    _, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/j", subprotocols=["dws.v1.json"]) as json_client:
        async with Client.open(f"{server.url}/ws/m", subprotocols=["x", "dws.v1.msgpack"]) as packed:
            assert packed.socket.subprotocol == "dws.v1.msgpack"
            await packed.socket.send(msgspec.msgpack.encode({"type": "subscribe", "topic": "t", "id": 1}))
            assert msgspec.msgpack.decode(await packed.socket.recv())["type"] == "ack"
            await json_client.subscribe("t")
            await json_client.send(type="send", topic="t", data={"é": [1, None]})
            assert (await json_client.receive())["data"] == {"é": [1, None]}
            assert msgspec.msgpack.decode(await packed.socket.recv())["data"] == {"é": [1, None]}


async def test_pipelined_sends_are_delivered_in_order() -> None:
    _, app = chat(limits=None)
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("t")
        for number in range(150):
            await client.send(type="send", topic="t", data=number)
        assert [(await client.receive())["data"] for _ in range(150)] == list(range(150))


async def test_message_matching_two_filters_arrives_once() -> None:
    _, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("a/#")
        await client.subscribe("a/+")
        await client.subscribe("a/b")
        await client.send(type="send", topic="a/b", data=1)
        assert (await client.receive())["data"] == 1
        assert (await client.exchange(type="ping", id=9)) == {"type": "pong", "id": 9}


def _principal(token: str) -> Principal:
    return Principal(id=token)


@pytest.mark.parametrize(
    ("ids", "tokens", "client_ids", "repeated"),
    [
        (("a", "b"), ("ann", "ann"), (None, None), True),
        (("a", "b"), ("ann", "ann"), ("1" * 16, "2" * 16), True),
        (("a", "a"), ("ann", "bob"), ("1" * 16, "1" * 16), False),
        (("a", "a"), (None, None), (None, None), True),
        (("a", "b"), (None, None), (None, None), False),
        (("a", "b"), (None, None), ("1" * 16, "1" * 16), True),
        (("a", "a"), (None, None), ("1" * 16, "2" * 16), False),
        (("a", "a"), (None, None), ("1" * 16, None), False),
    ],
)
async def test_repeated_key_is_delivered_once_on_any_node(
    ids: tuple[str, str], tokens: tuple[Any, Any], client_ids: tuple[Any, Any], repeated: bool
) -> None:
    """The key of another user, connection or client is another key."""
    options = {"verify_token": _principal} if tokens[0] else {}
    (_, first), (_, second) = chat("memory://keys", **options), chat("memory://keys", **options)
    positions = []
    async with serve(first) as a, serve(second) as b:
        for server, conn_id, token, client_id in zip((a, b), ids, tokens, client_ids, strict=True):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with Client.open(f"{server.url}/ws/{conn_id}", additional_headers=headers) as client:
                if client_id is not None:
                    await client.exchange(type="connect", data={"client_id": client_id}, id=0)
                answer = await client.exchange(type="send", topic="t", data=1, key="k", id=1)
                positions.append(answer["pos"])
    assert (positions[0] == positions[1]) is repeated


async def test_lifespan_composes_with_that_of_user() -> None:
    manager = WebSocketManager("chat", broker_url="memory://")
    async with manager.lifespan():
        await manager.publish("t", 1)
    app = chat_app(manager)
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        assert await client.exchange(type="ping") == {"type": "pong"}


async def test_connection_state_is_that_of_the_websocket() -> None:
    """It is created at the first access, and each connection has its own."""
    manager = WebSocketManager("chat", broker_url="memory://")
    app = FastAPI(lifespan=manager.lifespan)
    seen: list[object] = []

    async def name_client(websocket: WebSocket, name: str) -> None:
        websocket.state.name = name

    @app.websocket("/ws/{name}", dependencies=[Depends(name_client)])
    async def chat(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            connection.state.count = 0
            async for _ in connection:
                connection.state.count += 1
                seen.append((connection.state.name, connection.state.count))
                await connection.send_json("counted")

    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as a, Client.open(f"{server.url}/ws/b") as b:
        for client in (a, a, b):
            assert await client.exchange(type="ping") == "counted"
    assert seen == [("a", 1), ("a", 2), ("b", 1)]
    async with manager:
        socket = FakeWebSocket()
        connection = await manager.new_connection(socket)
        assert "_state" not in vars(socket)
        assert connection.state is socket.state
        await manager.close_connection(connection)
