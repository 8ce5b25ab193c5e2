"""A WebSocket protocol class for uvicorn that sends ready frames: `uvicorn --ws dws_core.server:WebSocketProtocol`.

A manager that starts in the lifespan of uvicorn selects it, unless an explicit `--ws` was given. It extends uvicorn's
own sans-I/O protocol with one feature, the ASGI extension `dws.frames`. Through it, the node frames a message once and
writes the frame to every connection, and is notified when the buffer of a connection is full. uvicorn still handles
handshakes, pings, limits, decompression, close and shutdown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar

from websockets.protocol import State

from dws_core._errors import ConfigurationError
from dws_core._node.sending.ready_frames import EXTENSION, FrameListener

try:
    import uvicorn
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
except ImportError as _error:  # pragma: no cover -- tested by hand, because tests have uvicorn
    raise ConfigurationError(
        "dws_core.server needs uvicorn with its sans-I/O WebSocket protocol, which is not installed.",
        fix="pip install 'uvicorn[standard]>=0.53'",
    ) from _error

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

__all__ = ["WebSocketProtocol"]

_USABLE = (State.CONNECTING, State.OPEN)


def _check_version(version: str) -> None:
    """Raise if uvicorn is older than 0.53.

    uvicorn 0.44 added keepalive pings to the protocol. Before 0.53, an application waits forever if its connection is
    lost while the buffer is full.
    """
    if tuple(int(part) for part in version.split(".")[:2]) < (0, 53):
        raise ConfigurationError(
            f"dws_core.server needs uvicorn 0.53 or newer, but {version} is installed.",
            fix="pip install -U 'uvicorn[standard]>=0.53', or omit --ws (dws then works, but slower)",
        )


_check_version(uvicorn.__version__)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with the ASGI extension `dws.frames`.

    Pass it to uvicorn: `uvicorn app:app --ws dws_core.server:WebSocketProtocol`, or `uvicorn.Config(app,
    ws="dws_core.server:WebSocketProtocol")`. It behaves like uvicorn's own protocol, but is faster.

    Attributes:
        flush_s: Timeout in seconds for clients to read buffered data when the server stops. uvicorn itself waits
            forever.
    """

    flush_s: ClassVar[float] = 5.0

    _flush: asyncio.TimerHandle | None = None
    _listener: FrameListener | None = None
    _paused: bool = False

    def run_asgi(self) -> Coroutine[Any, Any, None]:
        """Run the application with the extension in its scope."""
        extensions = self.scope["extensions"]
        assert extensions is not None, "uvicorn gives every WebSocket scope its extensions"  # noqa: S101 -- for type checkers
        extensions[EXTENSION] = self  # type: ignore[assignment]  # typed as dicts only
        return super().run_asgi()

    # -- the extension: see FrameSink

    def attach(self, listener: FrameListener) -> Callable[[bytes], object]:
        """Set the listener of the connection. Return the function that writes ready frames."""
        self._listener = listener
        if self._paused or self.conn.state is State.CONNECTING:
            listener.pause()
        self._notify_end()
        return self.transport.write

    def buffered_bytes(self) -> int:
        """Return the number of bytes in the transport's buffer, which are not passed to the operating system yet."""
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the connection and its buffered data."""
        self.transport.abort()

    # -- open or not: every event that changes this calls one of these methods
    #
    # Ready frames may be written from the accepted handshake until a close frame is sent or received (RFC 6455 §4.2.2,
    # §5.5.1). The application, the client, a shutdown, a failed ping or a malformed frame may cause the close frame.

    def _notify_end(self) -> None:
        """Notify the listener, once, that frames may no longer be written."""
        if self._listener is not None and (self.conn.state not in _USABLE or self.transport.is_closing()):
            listener, self._listener = self._listener, None
            listener.close()

    def data_received(self, data: bytes) -> None:
        """Process received data. It may contain a close frame, or a malformed frame."""
        super().data_received(data)
        self._notify_end()

    async def send(self, message: ASGISendEvent) -> None:
        """Process an event of the application. It may accept or close the connection."""
        opening = self.conn.state is State.CONNECTING
        try:
            await super().send(message)
        finally:
            self._notify_end()
        if opening and self._listener is not None and self.conn.state is State.OPEN and not self._paused:
            self._listener.resume()

    def keepalive_timeout(self) -> None:
        """Close a connection whose client does not answer pings."""
        super().keepalive_timeout()
        self._notify_end()

    def shutdown(self) -> None:
        """Close because the server stops. A client that does not read is dropped after `flush_s`."""
        super().shutdown()
        self._notify_end()
        if self.transport.get_write_buffer_size():
            self._flush = self.loop.call_later(self.flush_s, self.transport.abort)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Process the end of the application. The transport is closing."""
        super().on_task_complete(task)
        self._notify_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Process the end of the connection."""
        if self._flush is not None:
            self._flush.cancel()
        super().connection_lost(exc)
        self._notify_end()

    # -- flow control: called by the transport

    def pause_writing(self) -> None:
        """Pause the listener, because the buffer is full."""
        super().pause_writing()
        self._paused = True
        if self._listener is not None:
            self._listener.pause()

    def resume_writing(self) -> None:
        """Resume the listener, because the buffer has room."""
        super().resume_writing()
        self._paused = False
        if self._listener is not None:
            self._listener.resume()
