"""The ASGI extension through which a server takes ready frames.

A server that has it puts a `FrameSink` under `scope["extensions"]["dws.frames"]`. Ready frames are whole WebSocket data
frames as they go on the wire: unfragmented, unmasked, uncompressed, which is legal on a connection that negotiated
compression, too (RFC 7692 §6). Accepting, closing and pings stay with the ordinary ASGI messages.
`dws_core.server.WebSocketProtocol` is such a server for uvicorn.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final, Protocol, cast

EXTENSION: Final = "dws.frames"


class FrameListener(Protocol):
    """What a sink tells its connection."""

    def pause(self) -> None:
        """Take that the server's buffer is full: what is written now makes it grow."""
        ...

    def resume(self) -> None:
        """Take that the server's buffer has room again."""
        ...


class FrameSink(Protocol):
    """Takes ready frames of one connection. All methods return at once; none raises."""

    def attach(self, listener: FrameListener) -> None:
        """Choose who hears of the buffer. A sink that is full already says so at once."""
        ...

    def write_frames(self, data: bytes) -> bool:
        """Write one or more ready frames; False: the connection is not open, and they went nowhere."""
        ...

    def buffered_bytes(self) -> int:
        """Return the bytes that wait in the server's buffer."""
        ...

    def abort(self) -> None:
        """Drop the connection without a close frame, and what waits in the buffer with it."""
        ...


def sink_of(scope: MutableMapping[str, Any]) -> FrameSink | None:
    """Return the sink of a connection; None: the server takes no ready frames."""
    return cast("FrameSink | None", (scope.get("extensions") or {}).get(EXTENSION))
