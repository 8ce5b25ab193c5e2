"""Real servers and clients for tests: uvicorn in the test's own event loop, websockets as the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

HANG_S = 10.0
"""After this a wait is a failure."""


class Server(uvicorn.Server):
    """A uvicorn that leaves the process's signals alone and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to pytest."""
        yield

    async def startup(self, sockets: Any = None) -> None:
        """Say that the server listens."""
        await super().startup(sockets)
        self._listening.set()

    async def ready(self, task: asyncio.Task[None]) -> None:
        """Wait until it listens; fail if it ended."""
        listening = asyncio.get_running_loop().create_task(self._listening.wait())
        await asyncio.wait({listening, task}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if task.done():
            raise RuntimeError("the server did not start; see its log")

    @property
    def port(self) -> int:
        """The port that the system chose."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where WebSockets are opened, without a path."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        """Where HTTP requests go, without a path."""
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serve(app: Any, **config: Any) -> AsyncIterator[Server]:
    """Serve an ASGI application on a free loopback port until the block ends."""
    settings = {"host": "127.0.0.1", "port": 0, "log_level": "error", "lifespan": "on", **config}
    server = Server(uvicorn.Config(app, **settings))
    task = asyncio.get_running_loop().create_task(server.serve())
    try:
        await server.ready(task)
        yield server
    finally:
        server.should_exit = True
        async with asyncio.timeout(HANG_S):
            await task


class Client:
    """A test client that speaks JSON and never waits for ever."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, **kwargs: Any) -> AsyncIterator[Self]:
        """Connect; close at the end of the block."""
        async with connect(url, proxy=None, **kwargs) as socket:
            yield cls(socket)

    async def send(self, **members: Any) -> None:
        """Send a message."""
        await self.socket.send(json.dumps(members))

    async def receive(self) -> Any:
        """Return the next message, decoded."""
        async with asyncio.timeout(HANG_S):
            return json.loads(await self.socket.recv())

    async def ask(self, **members: Any) -> Any:
        """Send a message and return the next one."""
        await self.send(**members)
        return await self.receive()

    async def subscribe(self, topic: str) -> None:
        """Subscribe and wait for the ack."""
        answer = await self.ask(type="subscribe", topic=topic, id="subscribe")
        assert answer["type"] == "ack", answer

    async def closed(self) -> ConnectionClosed:
        """Wait until the server closes; messages before that are dropped."""
        async with asyncio.timeout(HANG_S):
            try:
                while True:
                    await self.socket.recv()
            except ConnectionClosed as closed:
                return closed
