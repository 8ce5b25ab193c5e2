"""A proxy between a real server and a real client, and helpers for tests of the three."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from support.servers import serve
from support.timeouts import HANG_S
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

from dws_core import WebSocketProxy

Handler = Callable[[ServerConnection], Awaitable[None]]


class Gateway:
    """An application with one proxied endpoint. Tests can wait until its call has returned."""

    def __init__(self, endpoint: str, *, accept: bool = False, accepted: str | None = None, **options: Any) -> None:
        self.app = FastAPI()
        self.ended = asyncio.Event()
        self.task: asyncio.Task[Any] | None = None
        self.failure: BaseException | None = None

        @self.app.websocket("/ws")
        async def proxy(websocket: WebSocket) -> None:
            self.task = asyncio.current_task()
            try:
                if accept:
                    await websocket.accept(subprotocol=accepted)
                await WebSocketProxy(websocket, endpoint, **options)()
            except BaseException as failure:
                self.failure = failure
                raise
            finally:
                self.ended.set()

    async def wait_ended(self) -> None:
        async with asyncio.timeout(HANG_S):
            await self.ended.wait()


class Upstream:
    """A handler that stores its connections and their close codes."""

    def __init__(self, handler: Handler | None = None) -> None:
        self._handler = handler
        self.connected: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[Close | None] = asyncio.get_running_loop().create_future()

    async def __call__(self, socket: ServerConnection) -> None:
        self.connected.set_result(socket)
        try:
            if self._handler is not None:
                await self._handler(socket)
            while True:
                await socket.recv()
        except ConnectionClosed as closed:
            self.closed.set_result(closed.rcvd)

    async def connection(self) -> ServerConnection:
        async with asyncio.timeout(HANG_S):
            return await self.connected

    async def close(self) -> Close | None:
        async with asyncio.timeout(HANG_S):
            return await self.closed


def url_of(server: Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@asynccontextmanager
async def behind_gateway(
    handler: Handler, *, gateway: dict[str, Any] | None = None, **server: Any
) -> AsyncIterator[tuple[str, Gateway]]:
    """Serve the handler and a gateway in front of it. Yield the URL for clients, and the gateway."""
    settings = {"close_timeout": 0.5, "compression": None, **server}
    async with serve_websockets(handler, "127.0.0.1", 0, **settings) as upstream:
        front = Gateway(url_of(upstream), **(gateway or {}))
        async with serve(front.app) as running:
            yield f"{running.url}/ws", front


@asynccontextmanager
async def gateway_to(endpoint: str, **options: Any) -> AsyncIterator[tuple[str, Gateway]]:
    """Serve a gateway in front of any endpoint, which need not be a WebSocket server."""
    front = Gateway(endpoint, **options)
    async with serve(front.app) as running:
        yield f"{running.url}/ws", front


def open_client(url: str, **options: Any) -> connect:
    defaults = {"proxy": None, "open_timeout": HANG_S, "close_timeout": 2.0, "compression": None}
    return connect(url, **defaults | options)


async def closed_with(client: ClientConnection) -> Close:
    """Wait until the client receives the close, and return it."""
    async with asyncio.timeout(HANG_S):
        with pytest.raises(ConnectionClosed) as closed:
            await read_all(client)
    assert closed.value.rcvd is not None, "the connection was cut instead of closed"
    return closed.value.rcvd


async def read_all(client: ClientConnection) -> None:
    while True:
        await client.recv()


async def flood(socket: ClientConnection | ServerConnection) -> None:
    while True:
        await socket.send(bytes(65_536))


async def refused_handshake(url: str, **options: Any) -> Response:
    async with asyncio.timeout(HANG_S):
        with pytest.raises(InvalidStatus) as error:
            await open_client(url, **options)
    return error.value.response


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


@contextmanager
def bound_socket(*, listening: bool) -> Iterator[str]:
    """Reserve a port that refuses connections, or one that accepts them and never replies."""
    with sockets.socket() as held:
        held.bind(("127.0.0.1", 0))
        if listening:
            held.listen()
        yield f"ws://127.0.0.1:{held.getsockname()[1]}/secret"
