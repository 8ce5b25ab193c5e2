"""Real servers and clients for tests, and a client that returns frames in the order received."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from dws_core.testing import AppClient, Server, serve

__all__ = ["HANG_S", "Client", "Server", "serve"]

HANG_S = 10.0
"""Timeout in seconds after which a wait is a failure."""


class Client(AppClient):
    """A test client for JSON whose waits have a timeout."""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, **kwargs: Any) -> AsyncIterator[Self]:
        """Connect with the arguments of `websockets`, and close at the end of the block."""
        async with connect(url, proxy=None, **kwargs) as socket:
            yield cls(socket, within_s=HANG_S)

    async def ask(self, **members: Any) -> Any:
        """Send a message, and return the next received message."""
        await self.send(**members)
        return await self.receive()

    async def closed(self) -> ConnectionClosed:
        """Wait until the server closes. Messages before that are dropped."""
        async with asyncio.timeout(HANG_S):
            try:
                while True:
                    await self.socket.recv()
            except ConnectionClosed as closed:
                return closed
