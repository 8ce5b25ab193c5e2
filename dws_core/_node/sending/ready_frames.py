"""The ASGI extension through which a server accepts ready frames.

A server with the extension puts a `FrameSink` under `scope["extensions"]["dws.frames"]`. Ready frames are complete
WebSocket data frames as they are sent on the wire: unfragmented, unmasked and uncompressed. Uncompressed frames are legal
on a connection that negotiated compression (RFC 7692 §6). Accept, close and pings remain ordinary ASGI messages.
`dws_core.server.WebSocketProtocol` implements the extension for uvicorn.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Final, Protocol, cast

EXTENSION: Final = "dws.frames"


class FrameListener(Protocol):
    """Receives the state of a sink. Implemented by the connection's outbox."""

    def pause(self) -> None:
        """Called when the server's buffer is full or writing is not allowed yet. Further writes grow the buffer."""
        ...

    def resume(self) -> None:
        """Called when the server's buffer has room again."""
        ...

    def close(self) -> None:
        """Called once when the connection closes. Do not write to it afterwards."""
        ...


class FrameSink(Protocol):
    """Accepts ready frames of one connection. All methods return immediately. None raises."""

    def attach(self, listener: FrameListener) -> Callable[[bytes], object]:
        """Set the listener. Return a function that writes one or more ready frames.

        A sink that is full, not accepted yet or closed calls `pause`, `pause` or `close` before this method returns. The
        returned function checks nothing because it is called for each delivery. Do not call it after `close` or before
        the handshake is accepted.
        """
        ...

    def buffered_bytes(self) -> int:
        """Return the size of the server's buffer, in bytes."""
        ...

    def limit_messages(self, limit_bytes: int) -> None:
        """Set the maximum size of received messages, in bytes. The server may accept up to twice the size."""
        ...

    def abort(self) -> None:
        """Drop the connection and its buffer without a close frame."""
        ...


def sink_of(scope: MutableMapping[str, Any]) -> FrameSink | None:
    """Return the sink of a connection, or None if the server does not accept ready frames."""
    return cast("FrameSink | None", (scope.get("extensions") or {}).get(EXTENSION))
