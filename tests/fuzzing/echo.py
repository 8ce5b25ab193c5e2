"""An application that returns every message, for fuzzing clients.

`/asgi` returns it by an ASGI message, `/ready` by a ready frame, as a node does. Only `PatientProtocol` has ready frames.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from dws_core._node.sending.ready_frames import sink_of
from dws_core._wire.frames import frame_header
from dws_core.server import WebSocketProtocol


class PatientProtocol(WebSocketProtocol):
    """The protocol class for clients that send a message in 65,536 fragments, as the cases 9.3.1 and 9.4.1 do."""

    extra_frames: ClassVar[int] = 100_000


class Listener:
    """Waits while the socket is full."""

    def __init__(self) -> None:
        self.closed = False
        self.writable = asyncio.Event()
        self.writable.set()

    def pause(self) -> None:
        self.writable.clear()

    def resume(self) -> None:
        self.writable.set()

    def close(self) -> None:
        self.closed = True
        self.writable.set()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Return every message of a WebSocket client until it disconnects."""
    if scope["type"] != "websocket":
        return
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    sink, listener = sink_of(scope), Listener()
    write = sink.attach(listener) if sink is not None and scope["path"] == "/ready" else None
    while (event := await receive())["type"] == "websocket.receive":
        if write is None:
            await send({**event, "type": "websocket.send"})
            continue
        await listener.writable.wait()
        if not listener.closed:
            write(_frame(event))


def _frame(event: dict[str, Any]) -> bytes:
    text, data = event.get("text"), event.get("bytes")
    payload: bytes = data if text is None else text.encode()
    return frame_header(len(payload), binary=text is None) + payload
