"""The ASGI extension through which a server takes ready frames.

A server that has it puts a `FrameSink` under `scope["extensions"]["dws.frames"]`. Ready frames are whole WebSocket data
frames as they go on the wire: unfragmented, unmasked, uncompressed, which is legal on a connection that negotiated
compression, too (RFC 7692 §6). Accepting, closing and pings stay with the ordinary ASGI messages.
`dws_core.server.WebSocketProtocol` is such a server for uvicorn.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Final, Protocol, cast

EXTENSION: Final = "dws.frames"


class FrameListener(Protocol):
    """What a sink tells its connection."""

    def pause(self) -> None:
        """Take that the server's buffer is full, and what is written makes it grow; or that nothing may be written yet."""
        ...

    def resume(self) -> None:
        """Take that the server's buffer has room again."""
        ...

    def close(self) -> None:
        """Take that the connection is open no more: what is written from now on goes nowhere, or where it must not."""
        ...


class FrameSink(Protocol):
    """Takes ready frames of one connection. All methods return at once; none raises."""

    def attach(self, listener: FrameListener) -> Callable[[bytes], object]:
        """Choose who hears of the connection; return what writes one or more ready frames.

        A sink that is full, not accepted yet or open no more says so at once: `pause`, `pause`, `close`. What is
        returned asks nothing, since it is called for each delivery: it must not be called once the listener was told
        of the close, nor before the accept.
        """
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
