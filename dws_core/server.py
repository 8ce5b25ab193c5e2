"""A WebSocket protocol class for uvicorn that sends ready frames: `uvicorn --ws dws_core.server:WebSocketProtocol`.

A manager that starts in the lifespan of uvicorn selects it, unless an explicit `--ws` was given. It extends uvicorn's
own sans-I/O protocol with one feature, the ASGI extension `dws.frames`. Through it, the node frames a message once and
writes the frame to every connection, and is notified when the buffer of a connection is full. It also drops clients that
flood the server or do not read. uvicorn still handles handshakes, pings, decompression, close and shutdown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from starlette.datastructures import Headers as _Headers
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from dws_core._auth.refusal import log_refused_client as _log_refusal
from dws_core._auth.refused_by_app import refusal_in as _refusal_in
from dws_core._auth.refused_by_app import reports_of as _reports_of
from dws_core._errors import ConfigurationError
from dws_core._limits.token_bucket import TokenBucket as _TokenBucket
from dws_core._node.sending.ready_frames import EXTENSION, FrameListener
from dws_core._uvicorn import count_refusal as _count_refusal
from dws_core._wire.close_codes import CloseCode as _CloseCode

try:
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
except ImportError as _error:  # pragma: no cover -- tested by hand, because tests have uvicorn
    raise ConfigurationError(
        "dws_core.server needs uvicorn with its sans-I/O WebSocket protocol, which is not installed.",
        fix="pip install 'uvicorn[standard]>=0.53'",
    ) from _error

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent
    from uvicorn.protocols.http.h11_impl import H11Protocol as _HTTPBase
else:
    _HTTPBase = AutoHTTPProtocol  # that of httptools or that of h11, which have the same interface

__all__ = ["HTTPProtocol", "WebSocketProtocol"]

_logger = logging.getLogger("dws")

_USABLE = (State.CONNECTING, State.OPEN)

_STEP_BYTES: Final = 16_384
"""Number of received bytes that are parsed at once."""

_FRAMES_PER_TICK: Final = 500
"""Number of frames of one client, about 6 µs each, after which the other clients continue."""

_SHORT_BYTES: Final = 256
"""A continuation frame with fewer bytes counts as a frame without purpose."""

_FRAGMENT_BYTES: Final = 32
"""Memory of a fragment in addition to its bytes. The maximum number of fragments follows from it."""

_RECOVER_S: Final = 10.0
"""Time in seconds in which the allowance of `extra_frames` recovers."""


_INVALID_TEXT: Final = 1007
_WARN_EVERY_S: Final = 60.0
_warned: dict[str, float] = {}


def _is_utf8(parts: list[bytes]) -> bool:
    try:
        (parts[0] if len(parts) == 1 else b"".join(parts)).decode()
    except UnicodeDecodeError:
        return False
    return True


def _warn_of_invalid_text(now: float) -> None:
    if now - _warned.get("text", -_WARN_EVERY_S) >= _WARN_EVERY_S:
        _warned["text"] = now
        _logger.warning("a client sent text that is not UTF-8 and is closed with 1007; logged at most once per minute")


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
        flush_s: Timeout in seconds for clients to read buffered data when the connection closes. uvicorn itself waits
            forever.
        extra_frames: Maximum number of control frames, short fragments, and frames after the close frame that a client
            may send at once. The allowance recovers within 10 seconds. One more drops the connection.
    """

    flush_s: ClassVar[float] = 5.0
    extra_frames: ClassVar[int] = 2000

    frames: list[bytes]
    read_paused: bool

    _flush: asyncio.TimerHandle | None = None
    _listener: FrameListener | None = None
    _paused: bool = False
    _max_fragments: int = 1_048_576
    _extra: _TokenBucket | None = None
    _deferred: bytearray | None = None

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

    def limit_messages(self, limit_bytes: int) -> None:
        """Set the maximum size of received messages, finished or not. A larger one closes the connection with 1009.

        The application closes earlier and in a better way, so it gets messages of twice the size.
        """
        self._max_fragments = 2 * limit_bytes // _FRAGMENT_BYTES
        name = "max_message_size" if hasattr(self.conn, "max_message_size") else "max_size"  # before websockets 16
        current = getattr(self.conn, name)
        setattr(self.conn, name, 2 * limit_bytes if current is None else min(current, 2 * limit_bytes))

    def abort(self) -> None:
        """Drop the connection and its buffered data."""
        self.transport.abort()

    # -- open or not: every event that changes this calls one of these methods
    #
    # Ready frames may be written from the accepted handshake until a close frame is sent or received (RFC 6455 §4.2.2,
    # §5.5.1). The application, the client, a shutdown, a failed ping or a malformed frame may cause the close frame.

    def _notify_end(self) -> None:
        """Notify the listener, once, that frames may no longer be written. From then on, the client must read."""
        if self._listener is not None and (self.conn.state not in _USABLE or self.transport.is_closing()):
            listener, self._listener = self._listener, None
            listener.close()
        if self.close_sent or self.transport.is_closing():
            self._abort_after_flush()

    def data_received(self, data: bytes) -> None:
        """Process received data. It may contain a close frame, or a malformed frame.

        A client that does not wait for the response to its handshake (RFC 6455 §4.1) is dropped, because the limit of its
        messages is not known yet.
        """
        if self.conn.state is State.CONNECTING and self.handshake_initiated:
            self.transport.abort()
        elif self._deferred is not None:
            self._deferred += data
        elif len(data) <= _STEP_BYTES:
            self._process_step(data)
            self._notify_end()
        else:
            self._process(data)

    def _process(self, data: bytes) -> bool:
        """Process received data up to a number of frames. Return False if the rest is deferred to the next tick."""
        frames = start = 0
        while start < len(data) and not self.transport.is_closing():
            frames += self._process_step(data[start : start + _STEP_BYTES])
            start += _STEP_BYTES
            if frames > _FRAMES_PER_TICK and start < len(data):
                self._defer(data[start:])
                return False
        self._notify_end()
        return True

    def _process_step(self, data: bytes) -> int:
        """Process received data as uvicorn does. Return the number of frames in it."""
        self.conn.receive_data(data)
        frames = len(self.conn.events)
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
        else:
            self.handle_events()
        if not self.handshake_initiated and self.conn.handshake_exc is not None:  # uvicorn writes no response
            _log_refusal(self.client, "the request is malformed")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        return frames

    def handle_connect(self, event: Request) -> None:
        """Process the request of a client. The server itself refuses one that is no WebSocket handshake."""
        super().handle_connect(event)
        if self.response.status_code != 101:
            fields = {name: ", ".join(event.headers.get_all(name)) for name in ("origin", "host")}
            _log_refusal(self.client, f"HTTP {self.response.status_code}, no WebSocket handshake", **fields)

    def _defer(self, data: bytes) -> None:
        self._deferred = bytearray(data)
        self.transport.pause_reading()
        self.read_paused = False  # uvicorn must not resume
        self.loop.call_soon(self._continue)

    def _continue(self) -> None:
        if self._deferred is None or self.transport.is_closing():
            return
        data, self._deferred = bytes(self._deferred), None
        if not self._process(data) or self.transport.is_closing():
            return
        self.read_paused = not (self.queue.empty() or self.close_sent)
        if not self.read_paused:  # otherwise uvicorn resumes when the application has received the queued messages
            self.transport.resume_reading()

    # -- frames without purpose

    def handle_ping(self) -> None:
        """Process a ping, which is answered already."""
        if self._allows_extra():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """Process a pong."""
        if self._allows_extra():
            super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        """Process a further frame of a message."""
        if len(self.frames) >= self._max_fragments:
            self._drop_flooder()
        elif len(event.data) >= _SHORT_BYTES or self._allows_extra():
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Process a complete message. After the close frame it is dropped."""
        if self.close_sent:
            if self._allows_extra():
                super().send_receive_event_to_app()
        elif self.curr_msg_data_type == "bytes" or _is_utf8(self.frames):
            super().send_receive_event_to_app()
        else:  # RFC 6455 §8.1. uvicorn itself logs a traceback for each
            _warn_of_invalid_text(self.loop.time())
            self.frames = []
            self.conn.fail(_INVALID_TEXT)
            self.handle_parser_exception()

    def _allows_extra(self) -> bool:
        """Count a frame without purpose. Return False, and drop the connection, if there are too many."""
        now = self.loop.time()
        if self._extra is None:
            self._extra = _TokenBucket(self.extra_frames / _RECOVER_S, self.extra_frames, now=now)
        if not self._extra.take(now):
            return True
        self._drop_flooder()
        return False

    def _drop_flooder(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.state is State.CONNECTING:
            self.transport.abort()
            return
        self.conn.fail(_CloseCode.FLOODING, _CloseCode.FLOODING.reason)
        self.handle_parser_exception()

    def _abort_after_flush(self) -> None:
        """Drop the closing connection if the client does not read the buffered data in time."""
        if self._flush is None and self.transport.get_write_buffer_size():
            self._flush = self.loop.call_later(self.flush_s, self._abort_if_unread)

    def _abort_if_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    async def send(self, message: ASGISendEvent) -> None:
        """Process an event of the application. It may accept or close the connection."""
        opening = self.conn.state is State.CONNECTING
        if not self.close_sent and (reason := _refusal_in(message, opening=opening)) is not None:
            self._report_refusal(reason)
        try:
            await super().send(message)
        finally:
            self._notify_end()
        if opening and self._listener is not None and self.conn.state is State.OPEN and not self._paused:
            self._listener.resume()

    def _report_refusal(self, reason: str) -> None:
        """Log and count a refused client, unless the node has done it."""
        scope = cast("MutableMapping[str, Any]", self.scope)
        reports, headers = _reports_of(scope), _Headers(scope=scope)
        if "line" not in reports:
            _log_refusal(self.client, reason, origin=headers.get("origin", ""), host=headers.get("host", ""))
        if "count" not in reports:
            _count_refusal(self.config)
        reports.update(("line", "count"))

    def keepalive_timeout(self) -> None:
        """Close a connection whose client does not answer pings."""
        super().keepalive_timeout()
        self._notify_end()

    def shutdown(self) -> None:
        """Close because the server stops. A client that does not read is dropped after `flush_s`."""
        super().shutdown()
        self._notify_end()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Process the end of the application. The transport is closing."""
        super().on_task_complete(task)
        self._notify_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Process the end of the connection."""
        self._deferred = None
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


class HTTPProtocol(_HTTPBase):
    """uvicorn's HTTP protocol with a timeout for the request: `uvicorn --http dws_core.server:HTTPProtocol`.

    uvicorn waits forever for the end of a request's header, such as that of a WebSocket handshake.

    Attributes:
        request_s: Timeout in seconds between the TCP connection and the end of the first header. After that, the
            connection is dropped.
    """

    request_s: ClassVar[float] = 10.0

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start the timeout."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.request_s, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Process received data. The end of a header ends the timeout."""
        super().data_received(data)
        upgraded = self.transport.get_protocol() is not self
        if upgraded or self.cycle is not None:
            self._end_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        """Process the end of the connection."""
        self._end_timeout()
        super().connection_lost(exc)

    def _end_timeout(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
