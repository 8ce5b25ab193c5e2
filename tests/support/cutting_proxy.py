"""A proxy from a client to two nodes whose connections break repeatedly, at any byte."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Self

from support.processes import NodeProcess

from dws_core._tasks import Tasks

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER value that closes a socket with a reset, without waiting."""


class _ConnectionEnded(Exception):
    """The connection has ended, or was cut."""


class CuttingProxy:
    """A proxy that forwards each connection to the next node, and cuts it after some bytes to the client.

    Args:
        nodes: Nodes to connect to, in turn.
        bytes_each: Number of bytes after which each connection is cut.
    """

    def __init__(self, nodes: Sequence[NodeProcess], bytes_each: Iterator[int]) -> None:
        self.hops = 0
        self.breaks = 0
        self._nodes = nodes
        self._bytes_each = bytes_each
        self._turn = 0
        self._blocked = False
        self._tasks = Tasks()
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        """The URL for clients, without a path."""
        return f"ws://127.0.0.1:{self._listener.getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._tasks.spawn(self._accept(), name="a cutting proxy")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._tasks.stop()
        self._listener.close()

    def block(self) -> None:
        """Refuse new connections, and close the open ones."""
        self._blocked = True
        for client in self._open:
            client.shutdown(socket.SHUT_RDWR)

    def unblock(self) -> None:
        """Accept connections again."""
        self._blocked = False

    async def _accept(self) -> None:
        while True:
            client, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            if self._blocked:
                client.close()
            else:
                self._tasks.spawn(self._pass(client), name="a connection through a cutting proxy")

    async def _pass(self, client: socket.socket) -> None:
        self._turn += 1
        port = int(self._nodes[self._turn % len(self._nodes)].url.rpartition(":")[2])
        with client, socket.socket() as node:
            for end in client, node:
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._open.add(client)
            try:
                await asyncio.get_running_loop().sock_connect(node, ("127.0.0.1", port))
                self.hops += 1
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(_pump(client, node, 2**62))
                    pumps.create_task(_pump(node, client, next(self._bytes_each)))
            except* (OSError, _ConnectionEnded):
                self.breaks += 1  # the client will reconnect
            finally:
                self._open.discard(client)


async def _pump(source: socket.socket, sink: socket.socket, room: int) -> None:
    loop = asyncio.get_running_loop()
    while room > 0 and (data := await loop.sock_recv(source, min(room, 65_536))):
        await loop.sock_sendall(sink, data)
        room -= len(data)
    raise _ConnectionEnded
