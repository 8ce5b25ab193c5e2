"""A scripted node: a real WebSocket server with one script of the test for each connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from support.timeouts import HANG_S
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response


class ScriptedConnection:
    """One connection of the client under test."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket

    async def send(self, **frame: Any) -> None:
        """Send a frame."""
        await self.socket.send(json.dumps(frame))

    async def receive(self, type_: str) -> dict[str, Any]:
        """Return the client's next message, which must be of this type."""
        async with asyncio.timeout(HANG_S):
            frame: dict[str, Any] = json.loads(await self.socket.recv())
        assert frame["type"] == type_, frame
        return frame

    async def accept_connect(self, cursor: str = "0:e:0", **members: Any) -> dict[str, Any]:
        """Receive the first message, reply to it, and return its data without the random client id."""
        hello = await self.receive("connect")
        await self.send(type="connected", id=hello["id"], conn_id="me", cursor=cursor, ping_s=20, **members)
        data: dict[str, Any] = hello["data"]
        assert len(data.pop("client_id")) >= 16
        return data

    async def message(self, offset: int, data: object, topic: str = "t") -> None:
        """Deliver a message."""
        await self.send(type="message", topic=topic, data=data, pos=f"0:e:{offset}")

    async def wait_closed(self) -> int:
        """Wait until the client has closed, and return the close code."""
        async with asyncio.timeout(HANG_S):
            await self.socket.wait_closed()
        return self.socket.close_code or 0


Script: TypeAlias = Callable[[ScriptedConnection], Awaitable[None]]


@asynccontextmanager
async def scripted(*scripts: Script | int) -> AsyncIterator[str]:
    """Serve the scripts, one for each connection in turn. At the end, all must have run without an error.

    A script that returns leaves its connection open until the client closes it. An integer is an HTTP status with which the
    handshake is answered.
    """
    played: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in scripts]
    count = 0

    def answer(socket: ServerConnection, request: Request) -> Response | None:
        nonlocal count
        status = scripts[count] if count < len(scripts) else None
        if not isinstance(status, int):
            return None
        played[count].set_result(None)
        count += 1
        return socket.respond(status, "")

    async def on_connection(socket: ServerConnection) -> None:
        nonlocal count
        number, count = count, count + 1
        script = scripts[number] if number < len(scripts) else None
        if script is None or isinstance(script, int):
            await socket.close(4500, "no more scripts")
            return
        try:
            await script(ScriptedConnection(socket))
        except BaseException as error:
            played[number].set_exception(error)
            raise
        played[number].set_result(None)
        await socket.wait_closed()

    options: Any = {"subprotocols": ["dws.v1.json"], "process_request": answer}
    async with serve(on_connection, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}"
        async with asyncio.timeout(HANG_S):
            await asyncio.gather(*played)
