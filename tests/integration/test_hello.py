"""Clients that send their token in the first message."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from support.servers import HANG_S, Client, Server, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dws_core import AuthenticationFailed, ConfigurationError, Handshake, Limits, Message, Principal, WebSocketManager


def verify(token: str) -> Principal | None:
    if token == "old":
        return Principal(id="ann", expires_at=1.0)
    return Principal(id=token.removeprefix("user:")) if token.startswith("user:") else None


class Node:
    """A node that accepts clients without credentials, and the messages that its handlers have received."""

    def __init__(self, **kwargs: Any) -> None:
        options: dict[str, Any] = {"broker_url": "memory://", "verify_token": verify, "hello": True, **kwargs}
        self.manager = WebSocketManager("hello", **options)
        self.app = FastAPI(lifespan=self.manager.lifespan)
        self.received: list[Message] = []
        self.failures: list[Exception] = []
        self.ignores_client = False
        self.ended = asyncio.Event()

        @self.app.websocket("/ws")
        async def endpoint(websocket: WebSocket) -> None:
            try:
                await self._serve(websocket)
            except Exception as error:
                self.failures.append(error)
                raise
            finally:
                self.ended.set()

    async def _serve(self, websocket: WebSocket) -> None:
        async with self.manager.connect(websocket, topic="news") as connection:
            if self.ignores_client:
                await asyncio.get_running_loop().create_future()
            async for message in connection:
                assert connection.principal is not None
                self.received.append(message)
                await self.manager.receive(connection, message)

    @asynccontextmanager
    async def open(self) -> Any:
        async with serve(self.app) as server, Client.open(f"{server.url}/ws") as client:
            yield client


def hello(token: str, **members: Any) -> dict[str, Any]:
    return {"type": "connect", "id": "hello", "data": {"token": token, **members}}


@pytest.mark.parametrize("ws", ["dws_core.server:WebSocketProtocol", "websockets-sansio"], ids=["ready", "asgi"])
async def test_token_in_first_message_authenticates(ws: str) -> None:
    node = Node()
    async with serve(node.app, ws=ws) as server, Client.open(f"{server.url}/ws") as client:
        answer = await client.exchange(**hello("user:ann", filters=["chat/#"]))
        assert (answer["type"], answer["id"], answer["conn_id"]) == ("connected", "hello", "ann")
        (connection,) = node.manager.active_connections
        assert connection.principal == Principal(id="ann")
        assert set(connection.topics) == {"news", "chat/#"}
        await node.manager.send_to_user("ann", 1)
        assert (await client.receive())["data"] == 1
        assert [message.type for message in node.received] == ["connect"]


async def test_nothing_is_sent_or_done_before_the_token() -> None:
    """Every other message is refused, and no message is delivered, also not of the endpoint's own topic."""
    node = Node()
    async with node.open() as client:
        for request in (
            {"type": "ping", "id": 1},
            {"type": "send", "topic": "news", "data": 1, "id": 2},
            {"type": "refresh", "data": {"token": "user:ann"}, "id": 3},
            {"type": "subscribe", "topic": "#", "id": 4},
        ):
            answer = await client.exchange(**request)
            assert (answer["type"], answer["code"], answer["id"]) == ("error", "unauthenticated", request["id"])
        for malformed in ({"id": 5}, {"type": "connect", "id": 6}, {"type": "connect", "data": {"token": 7}, "id": 7}):
            assert (await client.exchange(**malformed))["code"] == "invalid-message"
        await node.manager.broadcast("too early")
        await node.manager.publish("news", "too early")
        assert (node.manager.active_connections, node.received) == ([], [])
        assert (await client.exchange(**hello("user:ann")))["type"] == "connected"
        await node.manager.publish("news", "now")
        assert (await client.receive())["data"] == "now"


@pytest.mark.parametrize("token", ["wrong", "old"])
async def test_wrong_token_is_answered_and_closed(token: str) -> None:
    node = Node()
    async with node.open() as client:
        answer = await client.exchange(**hello(token))
        assert (answer["code"], answer["id"]) == ("unauthenticated", "hello")
        assert (await client.wait_closed()).rcvd.code == 1008
        assert node.manager.stats().refused == {"hello": 1}
    assert [type(failure).__mro__[2] for failure in node.failures] == [AuthenticationFailed]


async def test_hello_that_never_comes_is_closed() -> None:
    node = Node(limits=Limits(hello_timeout_s=0.2))
    async with node.open() as client:
        await client.exchange(type="ping")
        closed = (await client.wait_closed()).rcvd
        assert (closed.code, closed.reason) == (1008, "no message with a token arrived within 0.2 s")
    assert node.manager.stats().refused == {"hello": 1}


async def test_other_messages_do_not_extend_hello_timeout() -> None:
    node = Node(limits=Limits(hello_timeout_s=0.5, messages_per_s=None))
    async with node.open() as client, asyncio.timeout(HANG_S), asyncio.TaskGroup() as group:
        group.create_task(_ping(client))
        assert (await client.wait_closed()).rcvd.code == 1008


async def _ping(client: Client) -> None:
    """Send pings until the connection is closed."""
    with suppress(ConnectionClosed):
        while True:
            await client.send(type="ping")
            await asyncio.sleep(0)


@pytest.mark.parametrize("ws", ["dws_core.server:WebSocketProtocol", "websockets-sansio", "wsproto"])
async def test_client_that_leaves_before_hello_is_no_failure(ws: str) -> None:
    """The handler receives a closed connection, and nothing is logged."""
    node = Node(limits=Limits(connections=1, connections_per_address=1))
    async with serve(node.app, ws=ws) as server:
        for _ in range(2):
            async with Client.open(f"{server.url}/ws") as client:
                await client.exchange(type="ping")
            await asyncio.wait_for(node.ended.wait(), HANG_S)
            node.ended.clear()
    assert (node.failures, node.received) == ([], [])


async def test_handler_of_client_that_left_before_hello_is_cancelled() -> None:
    node = Node(limits=Limits(handler_grace_s=0.05))
    node.ignores_client = True
    async with serve(node.app) as server:
        async with Client.open(f"{server.url}/ws") as client:
            await client.exchange(type="ping")
        await asyncio.wait_for(node.ended.wait(), HANG_S)
    assert node.failures == []


async def test_waiting_clients_count_as_connections() -> None:
    node = Node(limits=Limits(connections=2))
    async with serve(node.app) as server, Client.open(f"{server.url}/ws") as a, Client.open(f"{server.url}/ws") as b:
        await asyncio.gather(a.exchange(type="ping"), b.exchange(type="ping"))
        assert await _status(server) == 503
        await a.exchange(**hello("user:ann"))
        assert await _status(server) == 503


async def _status(server: Server, **headers: str) -> int:
    try:
        async with Client.open(f"{server.url}/ws", additional_headers=headers):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_wrong_token_in_handshake_is_still_refused() -> None:
    node = Node()
    async with serve(node.app) as server:
        assert await _status(server, Authorization="Bearer wrong") == 401
        async with Client.open(f"{server.url}/ws", additional_headers={"Authorization": "Bearer user:bo"}) as client:
            assert (await client.exchange(type="ping"))["type"] == "pong"


async def test_without_hello_missing_token_is_refused() -> None:
    node = Node(hello=False)
    async with serve(node.app) as server:
        assert await _status(server) == 401
        assert node.manager.stats().refused == {"credentials": 1}


def test_hello_needs_authenticator_for_tokens() -> None:
    class Headers:
        async def authenticate(self, handshake: Handshake) -> Principal:
            raise AuthenticationFailed("no")

    for options in ({}, {"authenticator": Headers()}):
        with pytest.raises(ConfigurationError, match="hello=True needs"):
            WebSocketManager("hello", broker_url="memory://", hello=True, **options)


async def test_user_limit_counts_tokens_of_first_message() -> None:
    node = Node(limits=Limits(connections_per_user=1))
    async with serve(node.app) as server:
        async with Client.open(f"{server.url}/ws") as first:
            await first.exchange(**hello("user:ann"))
            async with Client.open(f"{server.url}/ws") as second:
                await second.send(**hello("user:ann"))
                assert (await second.wait_closed()).rcvd.code == 1013
        node.ended.clear()
        while node.manager.active_connections:
            await asyncio.wait_for(node.ended.wait(), HANG_S)
        async with Client.open(f"{server.url}/ws") as again:
            assert (await again.exchange(**hello("user:ann")))["type"] == "connected"


async def test_token_of_first_message_expires_and_is_refreshed() -> None:
    def short(token: str) -> Principal:
        return Principal(id="ann", expires_at=time.time() + float(token))

    node = Node(verify_token=short)
    async with node.open() as client:
        assert (await client.exchange(**hello("1")))["type"] == "connected"
        assert (await client.receive())["type"] == "expiring"
        assert (await client.exchange(type="refresh", data={"token": "2"}, id=1))["type"] == "ack"
        assert (await client.wait_closed()).rcvd.code == 4002
