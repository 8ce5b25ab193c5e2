"""The WebSocket protocol class for uvicorn that takes ready frames: `uvicorn --ws dws_core.server:WebSocketProtocol`.

It is uvicorn's own sans-I/O protocol and adds one thing: the ASGI extension `dws.frames`, through which the node writes
a message that was framed once to every connection, and hears when a connection's buffer is full. Handshake, pings,
limits, compression of what comes in, close and shutdown stay uvicorn's.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from websockets.protocol import State

from dws_core._errors import ConfigurationError
from dws_core._node.sink import EXTENSION, FrameListener

try:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
except ImportError as _error:  # pragma: no cover -- tried by hand; tests have uvicorn
    raise ConfigurationError(
        "dws_core.server needs uvicorn with its sans-I/O WebSocket protocol, and it is not there.",
        fix="pip install 'uvicorn[standard]>=0.35'",
    ) from _error

__all__ = ["WebSocketProtocol"]

_OPEN = State.OPEN


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with the ASGI extension `dws.frames`.

    Give it to uvicorn: `uvicorn app:app --ws dws_core.server:WebSocketProtocol`, or
    `uvicorn.Config(app, ws="dws_core.server:WebSocketProtocol")`. Applications notice nothing but speed.
    """

    _listener: FrameListener | None = None
    _paused: bool = False

    def run_asgi(self) -> Coroutine[Any, Any, None]:
        """Run the application with the extension in its scope."""
        extensions = self.scope["extensions"]
        assert extensions is not None, "uvicorn gives every WebSocket scope its extensions"  # noqa: S101 -- a fact
        extensions[EXTENSION] = self  # type: ignore[assignment]  # typed as dicts only
        return super().run_asgi()

    # -- the extension: see FrameSink

    def attach(self, listener: FrameListener) -> None:
        """Choose who hears of the buffer."""
        self._listener = listener
        if self._paused:
            listener.pause()

    def write_frames(self, data: bytes) -> bool:
        """Write ready frames between uvicorn's own; False: not open, they went nowhere.

        The connection is open from the accepted handshake until a close frame is sent or received (RFC 6455 §4.2.2,
        §5.5.1), whoever sends it: the application, the client, a shutdown, a failed ping or a malformed frame.
        """
        if self.conn.state is not _OPEN or self.transport.is_closing():
            return False
        self.transport.write(data)
        return True

    def buffered_bytes(self) -> int:
        """Return the bytes that the transport has not passed to the system."""
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the connection and what its buffer holds."""
        self.transport.abort()

    # -- flow control: called by the transport

    def pause_writing(self) -> None:
        """Pass on that the buffer is full."""
        super().pause_writing()
        self._paused = True
        if self._listener is not None:
            self._listener.pause()

    def resume_writing(self) -> None:
        """Pass on that the buffer has room."""
        super().resume_writing()
        self._paused = False
        if self._listener is not None:
            self._listener.resume()
