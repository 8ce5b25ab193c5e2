"""The server of a broker, as tests for any broker see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar


class BrokerServer(Protocol):
    """The server of a broker in a separate process. It keeps its data when it is killed. All methods block."""

    @property
    def url(self) -> str:
        """The URL for the nodes."""
        ...

    def start(self) -> None:
        """Start the process, with the data of an earlier one."""

    def kill(self) -> None:
        """Kill the process."""

    def freeze(self) -> None:
        """Stop the process, with its connections open."""

    def thaw(self) -> None:
        """Let the process continue."""

    def remove(self) -> None:
        """Kill the process and delete its data."""


S = TypeVar("S", bound=BrokerServer)


@asynccontextmanager
async def running(server: S) -> AsyncIterator[S]:
    """Start a server, and remove it at the end of the block."""
    try:
        await asyncio.to_thread(server.start)
        yield server
    finally:
        await asyncio.to_thread(server.remove)
