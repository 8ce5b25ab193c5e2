"""Real servers and clients for tests, and a client that returns frames in the order received."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from support.timeouts import HANG_S, progress_timeout
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from dws_core.testing import AppClient, Server, serve

__all__ = ["HANG_S", "Client", "Server", "serve"]


class Client(AppClient):
    """A test client for JSON whose waits have a timeout."""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, **kwargs: Any) -> AsyncIterator[Self]:
        """Connect with the arguments of `websockets`, and close at the end of the block."""
        async with connect(url, **{"proxy": None, "open_timeout": HANG_S, **kwargs}) as socket:
            yield cls(socket, within_s=HANG_S)

    async def exchange(self, **members: Any) -> Any:
        """Send a message, and return the next received message that is not a position, which may come at any time."""
        await self.send(**members)
        while True:
            received = await self.receive()
            if not isinstance(received, dict) or received.get("type") != "pos":
                return received

    async def wait_closed(self) -> ConnectionClosed:
        """Wait until the server closes. Messages before that are dropped."""
        async with progress_timeout() as progress:
            try:
                while True:
                    await self.socket.recv()
                    progress()
            except ConnectionClosed as closed:
                return closed
