"""Receiving in every mixture of ways, in several tasks, and with timeouts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import combinations_with_replacement
from typing import Any, TypeAlias

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from support.every_server import on_every_server, serve_on
from support.servers import HANG_S, Client, serve

from dws_core import ConfigurationError, Connection, WebSocketManager, ahandle, handle_subscription_message
from dws_core.testing import FakeWebSocket

Take: TypeAlias = Callable[[], Awaitable[Any]]


def iterating(connection: Connection) -> Take:
    messages = aiter(connection)

    async def take() -> Any:
        return (await anext(messages)).data

    return take


def iterating_json(connection: Connection) -> Take:
    messages = connection.iter_json()

    async def take() -> Any:
        return (await anext(messages))["data"]

    return take


def receiving(connection: Connection) -> Take:
    async def take() -> Any:
        return (await connection.receive_json())["data"]

    return take


def looping(connection: Connection) -> Take:
    async def take() -> Any:
        async for message in connection:
            return message.data
        raise WebSocketDisconnect

    return take


WAYS = (iterating, iterating_json, receiving, looping)
ENDED = (StopAsyncIteration, WebSocketDisconnect)


def app_with(handler: Callable[[Connection], Awaitable[None]]) -> FastAPI:
    """Return an application that serves each client with a handler."""
    manager = WebSocketManager("chat", broker_url="memory://", authorize=lambda *_: True)
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "a") as connection:
            await handler(connection)

    return app


async def _send(client: Client, *numbers: int) -> None:
    for number in numbers:
        await client.send(type="x", data=number)


@pytest.mark.parametrize(
    "ways", [*combinations_with_replacement(WAYS, 2)], ids=lambda w: "+".join(x.__name__ for x in w)
)
@pytest.mark.parametrize("standalone", [False, True], ids=["node", "standalone"])
async def test_two_receivers_share_messages_and_both_end(ways: Any, standalone: bool) -> None:
    got: list[int] = []
    ended: list[type[BaseException]] = []
    all_got = asyncio.Event()

    async def take_all(take: Take) -> None:
        try:
            while True:
                got.append(await take())
                if len(got) == 20:
                    all_got.set()
        except ENDED as error:
            ended.append(type(error))

    socket = FakeWebSocket()
    async with (
        WebSocketManager("chat", broker_url="memory://", authorize=lambda *_: True) as manager,
        asyncio.timeout(HANG_S),
    ):
        connection = Connection(socket, "a") if standalone else await manager.new_connection(socket, "a")
        await connection.accept()
        async with asyncio.TaskGroup() as group:
            for way in ways:
                group.create_task(take_all(way(connection)))
            for number in range(20):
                socket.client_sends_json({"type": "x", "data": number})
            await all_got.wait()
            socket.client_leaves()
        assert sorted(got) == list(range(20))
        assert len(ended) == 2


@on_every_server
async def test_timeout_ends_neither_iteration_nor_connection(server: str) -> None:
    got: list[Any] = []

    async def handler(connection: Connection) -> None:
        takes, timeouts = [way(connection) for way in WAYS], 0
        while len(got) < 20:
            for take in takes:
                try:
                    got.append(await asyncio.wait_for(take(), 0.001))
                except TimeoutError:
                    timeouts += 1
        await connection.send_json(timeouts)

    async with serve_on(server, app_with(handler)) as url, Client.open(f"{url}/ws", close_timeout=0.2) as client:
        for number in range(20):
            await _send(client, number)
            await asyncio.wait_for(client.socket.ping(), HANG_S)
        await client.receive()
        closed = (await client.wait_closed()).rcvd
        assert closed is not None
        assert closed.code == 1000
    assert got == list(range(20))


@on_every_server
@pytest.mark.parametrize("way", ["receive", "receive_text", "receive_bytes", "receive_json", "iter_text", "iter_json"])
async def test_raw_receive_in_block_raises(server: str, way: str) -> None:
    async def handler(connection: Connection) -> None:
        found = getattr(connection.websocket, way)()
        with pytest.raises(ConfigurationError, match=r"connection\.receive_json"):
            await (anext(found) if way.startswith("iter") else found)
        await connection.send_json("refused")
        assert await connection.receive_json() == {"type": "x", "data": 1}, "nothing is lost"
        await connection.send_json("received")

    async with serve_on(server, app_with(handler)) as url, Client.open(f"{url}/ws", close_timeout=0.2) as client:
        await _send(client, 1)
        assert [await client.receive(), await client.receive()] == ["refused", "received"]


async def test_decorated_and_subscribing_handlers_receive() -> None:
    left: list[int] = []

    async def on_left(error: WebSocketDisconnect) -> None:
        left.append(error.code)

    @ahandle(WebSocketDisconnect, on_left)
    async def handler(connection: Connection) -> None:
        handle_subscription_message(connection, await anext(aiter(connection)))
        await connection.send_json(sorted(connection.topics))
        while True:
            await connection.receive_json()

    async with serve(app_with(handler)) as server:
        async with Client.open(f"{server.url}/ws") as client:
            await client.send(type="subscribe", topic="t/+")
            assert await client.receive() == ["t/+"]
            await client.socket.close(4000)
    assert left == [4000]


async def test_repeated_timeouts_leave_nothing_behind() -> None:
    async with WebSocketManager("chat", broker_url="memory://", authorize=lambda *_: True) as manager:
        connection = await manager.new_connection(socket := FakeWebSocket(), "a")
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(connection), 0.0001)
        inbox: Any = connection._inbox
        assert len(inbox._receivers) <= 1
        socket.client_leaves()
        with pytest.raises(StopAsyncIteration):
            await anext(connection)
