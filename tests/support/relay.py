"""A relay to a server that can lose replies and cut connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Relay:
    """Forwards connections to a port of this machine.

    Attributes:
        port: Port that the relay listens on.
        dropping_replies: Whether to drop all data from the server.
    """

    def __init__(self) -> None:
        self.port = 0
        self.dropping_replies = False
        self._open: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator[Relay]:
        """Listen, and connect each client to a port."""
        relay = cls()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
            relay._open |= {writer, to_server}
            async with asyncio.TaskGroup() as group:
                group.create_task(relay._pump(reader, to_server, are_replies=False))
                group.create_task(relay._pump(from_server, writer, are_replies=True))
            relay._open -= {writer, to_server}

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        relay.port = server.sockets[0].getsockname()[1]
        try:
            yield relay
        finally:
            server.close()
            relay.cut()

    def cut(self) -> None:
        """End all connections."""
        for writer in self._open:
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, are_replies: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if not (are_replies and self.dropping_replies):
                    writer.write(data)
        writer.transport.abort()
