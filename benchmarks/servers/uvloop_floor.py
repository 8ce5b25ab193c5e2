"""The floor for Python: a uvloop protocol that writes one ready frame to each transport, without a framework.

Like `floor.c`, it implements only the messages of the benchmarks and trusts its client. It prints its port.
"""

from __future__ import annotations

import asyncio
import json
import resource
import struct
from typing import cast

import uvloop

HANDSHAKE_REPLY = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"  # for the sample key of RFC 6455 §1.3
)
topics: dict[str, list[asyncio.Transport]] = {}


def frame(text: bytes) -> bytes:
    if len(text) < 126:
        return bytes((0x81, len(text))) + text
    return b"\x81\x7e" + struct.pack("!H", len(text)) + text


def unmask(data: bytes, mask: bytes) -> bytes:
    if mask == b"\0\0\0\0":
        return data
    return bytes(byte ^ mask[at & 3] for at, byte in enumerate(data))


class Floor(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's class is not a subclass of asyncio's
        self.open = False
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        if not self.open:
            _, end, after = data.partition(b"\r\n\r\n")
            self.rest = data
            if not end:
                return
            self.open, data = True, after
            self.transport.write(HANDSHAKE_REPLY)
        self.rest = self.take_frames(data)

    def take_frames(self, data: bytes) -> bytes:
        while len(data) >= 6:
            size, head = data[1] & 127, 6
            if size == 126:
                size, head = int.from_bytes(data[2:4]), 8
            if len(data) < head + size:
                break
            if data[0] & 15 == 1:
                self.on_text(unmask(data[head : head + size], data[head - 4 : head]))
            data = data[head + size :]
        return data

    def on_text(self, text: bytes) -> None:
        message = json.loads(text)
        receivers = topics.setdefault(message["topic"], [])
        if message["type"] == "subscribe":
            receivers.append(self.transport)
        else:
            ready = frame(text)
            for transport in receivers:
                transport.write(ready)
        if "id" in message:
            self.transport.write(frame(b'{"type":"ack","id":%d}' % message["id"]))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(main())
