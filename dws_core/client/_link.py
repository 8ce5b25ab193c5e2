"""One open connection of a client."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed as SocketClosed

from dws_core._wire.codecs import Codec
from dws_core._wire.message import JSON

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection


class Link:
    """Encodes and sends messages, receives and decodes them. Messages are sent in the order of the calls.

    Attributes:
        leaving: Whether the client closes the connection itself to connect to another node.
        since_s: Time at which the node accepted the first message, in seconds of the loop's clock. None before that.
    """

    def __init__(self, socket: ClientConnection, codec: Codec) -> None:
        self.leaving: bool = False
        self.since_s: float | None = None
        self._socket = socket
        self._codec = codec
        self._turn = asyncio.Lock()

    async def send(self, *messages: JSON) -> None:
        """Send messages. If the connection is closed, return: the reader reports that."""
        async with self._turn:
            try:
                for message in messages:
                    data = self._codec.encode(message)
                    await self._socket.send(data if self._codec.binary else data.decode())
            except SocketClosed:
                return

    async def receive(self) -> JSON:
        """Wait for the next message.

        Raises:
            CodecError: The message cannot be decoded.
            websockets.exceptions.ConnectionClosed: The connection is closed.
        """
        return self._codec.decode(await self._socket.recv())

    async def leave(self, in_s: float) -> None:
        """Close after a time, to connect to another node."""
        await asyncio.sleep(in_s)
        self.leaving = True
        await self.close()

    async def close(self) -> None:
        """Close with 1000 while another task reads. Closing again does nothing."""
        await self._socket.close()

    async def end(self) -> None:
        """Close with 1000 from the task that reads. It drops messages until the other side's close frame arrives."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._socket.close())
            with suppress(SocketClosed):
                while True:
                    await self._socket.recv()
