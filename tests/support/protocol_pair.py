"""One connection of the protocol class. The test controls the application's side and the client's side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from support.raw_client import RawClient
from support.servers import Server, serve
from support.timeouts import HANG_S

OURS = "dws_core.server:WebSocketProtocol"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n"


def ready_frame(payload: bytes) -> bytes:
    return bytes((0x81, len(payload))) + payload


class App:
    """An application that passes scope, receive and send of each connection to the test, and waits for its end."""

    def __init__(self) -> None:
        self.opened: asyncio.Queue[AppSide] = asyncio.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        side = AppSide(scope, receive, send)
        self.opened.put_nowait(side)
        await side.done.wait()


class SinkListener:
    def __init__(self) -> None:
        self.paused = False
        self.closed = False
        self.resumed = asyncio.Event()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self.resumed.set()

    def close(self) -> None:
        assert not self.closed, "close() must be called once only"
        self.closed = True


class AppSide:
    """The application's side of one connection."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.sink = scope["extensions"]["dws.frames"]
        self.receive: Callable[[], Awaitable[dict[str, Any]]] = receive
        self.send: Callable[[dict[str, Any]], Awaitable[None]] = send
        self.done = asyncio.Event()
        self.listener = SinkListener()
        self._write = self.sink.attach(self.listener)

    def write(self, data: bytes) -> bool:
        """Write ready frames if the sink allows it, and return whether it does."""
        if self.listener.closed or self.listener.paused:
            return False
        self._write(data)
        return True

    async def accept(self) -> None:
        assert (await self.receive())["type"] == "websocket.connect"
        await self.send({"type": "websocket.accept"})

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(HANG_S):
            return await self.receive()


@asynccontextmanager
async def open_pair(headers: str = "", **config: Any) -> AsyncIterator[tuple[AppSide, RawClient, Server]]:
    """Open an accepted connection, and yield both sides."""
    app = App()
    settings = {"ws": OURS, "lifespan": "off", "ws_per_message_deflate": bool(headers), **config}
    async with serve(app, **settings) as server:
        opening = RawClient.open(server.url, headers=headers)
        task = asyncio.get_running_loop().create_task(opening.__aenter__())
        side = await app.opened.get()
        await side.accept()
        client = await task
        try:
            yield side, client, server
        finally:
            side.done.set()
            await opening.__aexit__(None, None, None)
