"""The WebSocket protocol class for uvicorn that takes ready frames: `uvicorn --ws dws_core.server:WebSocketProtocol`.

It is uvicorn's own sans-I/O protocol and adds one thing: the ASGI extension `dws.frames`, through which the node writes
a message that was framed once to every connection, and hears when a connection's buffer is full. Handshake, pings,
limits, compression of what comes in, close and shutdown stay uvicorn's.
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
except ImportError as _error:  # pragma: no cover -- tried by hand; tests have uvicorn
    raise ConfigurationError(
        "dws_core.server needs uvicorn with its sans-I/O WebSocket protocol, and it is not there.",
        fix="pip install 'uvicorn[standard]>=0.53'",
    ) from _error

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

__all__ = ["WebSocketProtocol"]

_USABLE = (State.CONNECTING, State.OPEN)


def _check_version(version: str) -> None:
    """Refuse a uvicorn in which a connection that is lost while its buffer is full keeps its application waiting for ever.

    0.44 brought keepalive pings to the protocol, 0.53 wakes up senders of lost connections.
    """
    if tuple(int(part) for part in version.split(".")[:2]) < (0, 53):
        raise ConfigurationError(
            f"dws_core.server needs uvicorn 0.53 or newer, and this is {version}.",
            fix="pip install -U 'uvicorn[standard]>=0.53', or leave --ws out: dws works without it, slower",
        )


_check_version(uvicorn.__version__)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with the ASGI extension `dws.frames`.

    Give it to uvicorn: `uvicorn app:app --ws dws_core.server:WebSocketProtocol`, or
    `uvicorn.Config(app, ws="dws_core.server:WebSocketProtocol")`. Applications notice nothing but speed.

    Attributes:
        flush_s: Seconds that a server which stops gives a client to read what waits for it. uvicorn alone waits for ever.
    """

    flush_s: ClassVar[float] = 5.0

    _flush: asyncio.TimerHandle | None = None
    _listener: FrameListener | None = None
    _paused: bool = False

    def run_asgi(self) -> Coroutine[Any, Any, None]:
        """Run the application with the extension in its scope."""
        extensions = self.scope["extensions"]
        assert extensions is not None, "uvicorn gives every WebSocket scope its extensions"  # noqa: S101 -- a fact
        extensions[EXTENSION] = self  # type: ignore[assignment]  # typed as dicts only
        return super().run_asgi()

    # -- the extension: see FrameSink

    def attach(self, listener: FrameListener) -> Callable[[bytes], object]:
        """Choose who hears of the connection; return what writes ready frames between uvicorn's own."""
        self._listener = listener
        if self._paused or self.conn.state is State.CONNECTING:
            listener.pause()
        self._tell_end()
        return self.transport.write

    def buffered_bytes(self) -> int:
        """Return the bytes that the transport has not passed to the system."""
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the connection and what its buffer holds."""
        self.transport.abort()

    # -- open or not: whatever begins or ends that passes here
    #
    # Ready frames may be written from the accepted handshake until a close frame is sent or received (RFC 6455 §4.2.2,
    # §5.5.1), whoever sends it: the application, the client, a shutdown, a failed ping or a malformed frame.

    def _tell_end(self) -> None:
        """Tell the listener, once, that frames may no longer be written."""
        if self._listener is not None and (self.conn.state not in _USABLE or self.transport.is_closing()):
            listener, self._listener = self._listener, None
            listener.close()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent: perhaps its close frame, or a malformed one."""
        super().data_received(data)
        self._tell_end()

    async def send(self, message: ASGISendEvent) -> None:
        """Take what the application sends: perhaps the accept, or a close."""
        opening = self.conn.state is State.CONNECTING
        try:
            await super().send(message)
        finally:
            self._tell_end()
        if opening and self._listener is not None and self.conn.state is State.OPEN and not self._paused:
            self._listener.resume()

    def keepalive_timeout(self) -> None:
        """Close a connection that answers no pings."""
        super().keepalive_timeout()
        self._tell_end()

    def shutdown(self) -> None:
        """Close because the server stops; a client that does not read is dropped in the end."""
        super().shutdown()
        self._tell_end()
        if self.transport.get_write_buffer_size():
            self._flush = self.loop.call_later(self.flush_s, self.transport.abort)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Take that the application has returned: the transport is closing."""
        super().on_task_complete(task)
        self._tell_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take that the connection is gone."""
        if self._flush is not None:
            self._flush.cancel()
        super().connection_lost(exc)
        self._tell_end()

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
