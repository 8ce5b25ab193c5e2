"""One open socket of a client."""

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
    """Encodes and sends, receives and decodes. What is sent leaves in the order of the calls.

    Attributes:
        leaving: Whether the client itself closes it, to connect elsewhere.
        since_s: When the node took the first message, in seconds; None: it has not.
    """

    def __init__(self, socket: ClientConnection, codec: Codec) -> None:
        self.leaving: bool = False
        self.since_s: float | None = None
        self._socket = socket
        self._codec = codec
        self._turn = asyncio.Lock()

    async def send(self, *messages: JSON) -> None:
        """Send; that a socket is gone is the reader's business."""
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
            CodecError: It cannot be decoded.
            websockets.exceptions.ConnectionClosed: The socket is closed.
        """
        return self._codec.decode(await self._socket.recv())

    async def close(self) -> None:
        """Close with 1000, while somebody else reads; closing again does nothing."""
        await self._socket.close()

    async def end(self) -> None:
        """Close with 1000 as the one who reads: what still comes is dropped, so that the answer to the close is seen."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._socket.close())
            with suppress(SocketClosed):
                while True:
                    await self._socket.recv()
