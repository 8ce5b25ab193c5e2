"""A WebSocket client for invalid and unusual frames: it writes and reads single frames."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as tls
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from support.timeouts import HANG_S, progress_timeout

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@dataclass(frozen=True)
class RawFrame:
    """A received frame (RFC 6455 §5.2)."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv1: bool = False


def raw_frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True, rsv: int = 0) -> bytes:
    """Return one frame, well-formed or not."""
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    size = len(payload)
    masked = 0x80 if mask else 0
    if size < 126:
        header = bytes((first, masked | size))
    elif size < 65_536:
        header = bytes((first, masked | 126)) + struct.pack("!H", size)
    else:
        header = bytes((first, masked | 127)) + struct.pack("!Q", size)
    key = os.urandom(4) if mask else b""
    if mask:
        mask_of_all = int.from_bytes((key * (size // 4 + 1))[:size], "big")
        payload = (int.from_bytes(payload, "big") ^ mask_of_all).to_bytes(size, "big")
    return header + key + payload


class RawClient:
    """One TCP connection after its WebSocket handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader = reader
        self.writer = writer
        self.head = head

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, headers: str = "", ssl: tls.SSLContext | None = None, receive_buffer: int | None = None
    ) -> AsyncIterator[Self]:
        """Connect and do the handshake. Drop the connection at the end of the block.

        A small `receive_buffer`, in bytes, lets the server notice soon that the client does not read.
        """
        parts = urlsplit(url)
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
        name = parts.hostname if ssl is not None else None
        reader, writer = await asyncio.open_connection(sock=sock, ssl=ssl, server_hostname=name, limit=4096)
        try:
            writer.write(
                f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                f"Sec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
            )
            async with asyncio.timeout(HANG_S):
                head = await reader.readuntil(b"\r\n\r\n")
            yield cls(reader, writer, head.decode())
        finally:
            writer.transport.abort()

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True, rsv: int = 0) -> None:
        """Write one frame, well-formed or not."""
        self.writer.write(raw_frame(opcode, payload, fin=fin, mask=mask, rsv=rsv))

    async def receive(self) -> RawFrame:
        """Read one frame. Servers do not mask frames."""
        async with asyncio.timeout(HANG_S):
            first, second = await self.reader.readexactly(2)
            assert not second & 0x80, "a server's frame is masked (RFC 6455 §5.1)"
            size = second
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            payload = await self.reader.readexactly(size)
        return RawFrame(first & 0x0F, payload, fin=bool(first & 0x80), rsv1=bool(first & 0x40))

    async def close_code(self) -> int | None:
        """Read up to the close frame, and return its code. Return None if the connection ended without one."""
        while True:
            try:
                frame = await self.receive()
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            if frame.opcode == CLOSE:
                return int.from_bytes(frame.payload[:2], "big") if frame.payload else 1005

    async def wait_ended(self) -> None:
        """Read until the server has ended the TCP connection."""
        async with progress_timeout() as progress:
            try:
                while await self.reader.read(65_536):
                    progress()
            except ConnectionError:
                pass
