"""One client's socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypedDict

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from dws_core._auth.interface import Principal
from dws_core._errors import CodecError, ConnectionClosed, InvalidMessage
from dws_core._limits.backlog import SlowConsumer
from dws_core._limits.limits import Limits
from dws_core._limits.token_bucket import TokenBucket
from dws_core._node.connection.filter_set import FilterSet
from dws_core._node.connection.handler_guard import HandlerGuard
from dws_core._node.connection.reader import Inbox, InboxEnded
from dws_core._node.pacing import Pacer
from dws_core._node.sending.fanout import Fanout
from dws_core._node.sending.outbox import Outbox, ReadyOutbox, TaskOutbox
from dws_core._node.sending.ready_frames import sink_of
from dws_core._node.stats import Counters
from dws_core._tasks import Tasks
from dws_core._topics.router import Router
from dws_core._topics.trie import MqttMatcher
from dws_core._wire.client_errors import ClientError, Refused, describe
from dws_core._wire.close_codes import CloseCode, reason_of
from dws_core._wire.codecs import Codec, JSONCodec
from dws_core._wire.frames import Frame, encode_frame
from dws_core._wire.message import JSON, Message

logger = logging.getLogger("dws")

_GONE = (WebSocketDisconnect, RuntimeError, OSError)
"""What servers and Starlette raise when a socket is written to that is closing or closed."""


class ConnectionHost(Protocol):
    """What a connection needs around it: a node, or a stand-in for a connection without one."""

    tasks: Tasks
    pacer: Pacer
    router: Router[Any]
    limits: Limits
    fanout: Fanout
    counters: Counters

    def on_closed(self, connection: Connection) -> None:
        """Forget the connection. Called once."""
        ...


class _OutboxSettings(TypedDict):
    codec: Codec
    limit_bytes: int | None
    policy: SlowConsumer
    counters: Counters
    on_overflow: Callable[[], None]


class _Alone:
    """The host of a connection that no manager knows."""

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.pacer = Pacer()
        self.router: Router[Any] = Router(MqttMatcher())
        self.limits = Limits(message_bytes=None, messages_per_s=None)
        self.counters = Counters()
        self.fanout = Fanout(self.counters)

    def on_closed(self, connection: Connection) -> None:
        """Nothing to forget."""


class Connection:
    """One client's socket: receive and send, filters, who it is.

    A manager makes it (`connect`, `new_connection`). One made by hand around a WebSocket works alone.

    Args:
        websocket: Starlette's or FastAPI's WebSocket.
        conn_id: The id that direct messages are sent to.
        topic: A filter to subscribe to at once; None: none.
        principal: Who the client is.
        codec: How its messages are encoded; None: JSON.
        slow_consumer: What happens when it does not read fast enough; None: as `Limits.slow_consumer` says.
        host: The node; None: it works alone.

    Attributes:
        websocket: The socket underneath. Do not send through it: the outbox owns the writing side.
        id: The connection id. Several connections may share one.
        principal: Who the client is; None: not authenticated.
        codec: How its messages are encoded.
        guard: What ends its handler once it is gone; None: nobody serves it.
    """

    __slots__ = (
        "__weakref__", "_bucket", "_close_code", "_close_reason", "_ended", "_host", "_inbox", "codec", "guard", "id", "outbox",
        "principal", "websocket",
    )  # fmt: skip

    def __init__(
        self,
        websocket: WebSocket,
        conn_id: str,
        topic: str | None = None,
        *,
        principal: Principal | None = None,
        codec: Codec | None = None,
        slow_consumer: SlowConsumer | None = None,
        host: ConnectionHost | None = None,
    ) -> None:
        self.websocket: WebSocket = websocket
        self.id: str = conn_id
        self.principal: Principal | None = principal
        self.codec: Codec = codec or JSONCodec()
        self._host: ConnectionHost = host or _Alone()
        limits = self._host.limits
        self.outbox: Outbox = self._make_outbox(slow_consumer or limits.slow_consumer)
        self._inbox: Inbox | None = None
        self.guard: HandlerGuard | None = None
        self._bucket = None
        if limits.messages_per_s is not None:
            self._bucket = TokenBucket(limits.messages_per_s, limits.burst, now=asyncio.get_running_loop().time())
        self._close_code: int | None = None
        self._close_reason = ""
        self._ended = False
        if topic is not None:
            self.topics.add(topic)

    def __repr__(self) -> str:
        return f"<Connection {self.id!r}{' closed' if self.closed else ''}>"

    # -- state

    @property
    def topics(self) -> FilterSet:
        """The filters of this connection: a live set; adding and removing subscribes and unsubscribes."""
        return FilterSet(self._host.router, self)

    @property
    def closed(self) -> bool:
        """Whether the socket is closed or closing; what is sent now goes nowhere."""
        return self._close_code is not None

    @property
    def takes_ready_frames(self) -> bool:
        """Whether the server takes frames that are framed already: the quicker way, same behaviour."""
        return isinstance(self.outbox, ReadyOutbox)

    @property
    def close_code(self) -> int | None:
        """Close code (RFC 6455 §7.4), 1006 where no close frame came; None while it is open."""
        return self._close_code

    # -- receiving

    async def accept(self, subprotocol: str | None = None) -> None:
        """Accept the handshake; one that is accepted already is left as it is."""
        if self.websocket.application_state is WebSocketState.CONNECTING:
            await self.websocket.accept(subprotocol=subprotocol)

    async def receive_json(self) -> JSON:
        """Return the client's next message, decoded. A malformed one is answered by an `error` and skipped.

        Raises:
            WebSocketDisconnect: The client is gone (Starlette's exception, as in the original library).
        """
        try:
            return await self._next()
        except (InboxEnded, ConnectionClosed):
            raise WebSocketDisconnect(self._close_code or 1006, self._close_reason) from None

    async def iter_json(self) -> AsyncIterator[JSON]:
        """Iterate over the client's messages, decoded, until it is gone."""
        while True:
            try:
                message = await self._next()
            except (InboxEnded, ConnectionClosed):
                return
            yield message

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over the client's messages until it is gone; malformed ones are answered by an `error`."""
        while True:
            try:
                data = await self._next()
                message = Message.from_client_message(data=data)
            except InvalidMessage as error:
                self.send_error(error, request_id=_id_of(data))
                continue
            except (InboxEnded, ConnectionClosed):
                return
            yield message

    def _next(self) -> Awaitable[JSON]:
        """Wait for the next message. Not a coroutine itself: an idle connection keeps one frame less in memory."""
        return self._read() if self._inbox is None else self._inbox.get()

    def start_reading(self) -> None:
        """Read in the background until the client is gone, whatever the handler does: the only reader from now on."""
        self._inbox = Inbox(self._host.limits.inbox_messages)
        self._host.tasks.spawn(self._fill(self._inbox), name=f"read from connection {self.id!r}")

    async def _fill(self, inbox: Inbox) -> None:
        try:
            while True:
                message = await self._read()
                if inbox.full and not await inbox.room(self._host.limits.handler_stall_s):
                    busy = Refused("overloaded", "the handler does not keep up; try again later", temporary=True)
                    self.send_error(busy, request_id=_id_of(message))
                    continue
                inbox.put(message)
        except ConnectionClosed:
            return
        finally:
            self._end(1006, "")

    async def _read(self) -> JSON:
        """Return the next acceptable message; bad ones are answered here.

        Raises:
            ConnectionClosed: The client is gone.
        """
        while True:
            try:
                event = await self.websocket.receive()
            except _GONE:
                event = {"type": "websocket.disconnect", "code": 1006}
            if event["type"] == "websocket.disconnect":
                self._end(event.get("code", 1005), event.get("reason") or "")
            message = None if self.closed else self._accepted(event)
            if self.closed:
                raise ConnectionClosed(self._close_code or 1006, self._close_reason, connection=self)
            if message is not None:
                return message[0]

    def _accepted(self, event: MutableMapping[str, Any]) -> tuple[JSON] | None:
        """Return the message of a frame; None: it was answered by an error, or closed the connection."""
        refusal = self._check_rate()
        payload = None if self.closed else self._payload_of(event)
        if payload is None:
            return None
        try:
            message = self.codec.decode(payload)
        except CodecError as error:
            self.send_error(refusal or error)
            return None
        if refusal is None:
            return (message,)
        self.send_error(refusal, request_id=_id_of(message))
        return None

    def _payload_of(self, event: MutableMapping[str, Any]) -> bytes | str | None:
        text, data = event.get("text"), event.get("bytes")
        if (data is not None) != self.codec.binary:
            self.disconnect(CloseCode.UNSUPPORTED_DATA)
            return None
        payload: bytes | str = data if data is not None else text or ""
        limit = self._host.limits.message_bytes
        if limit is not None and (len(payload) > limit or _utf8_size(payload, limit) > limit):
            self.disconnect(CloseCode.MESSAGE_TOO_BIG, f"message over {limit} bytes")
            return None
        return payload

    def _check_rate(self) -> Refused | None:
        if self._bucket is None or not (wait_s := self._bucket.take(asyncio.get_running_loop().time())):
            return None
        limit = self._host.limits.flood_messages
        if limit is not None and self._bucket.refused > limit:
            self.disconnect(CloseCode.FLOODING)
        return Refused("rate-limited", "too many messages; slow down", temporary=True, retry_in_s=wait_s)

    # -- sending

    async def send_json(self, data: JSON) -> bool:
        """Send a value to this client, as it is; return when it is written.

        Returns:
            False: the connection is closed, and the value went nowhere.

        Raises:
            CodecError: The connection's codec cannot express the value.
        """
        pushed = self.push(encode_frame(self.codec, data))
        await self._host.fanout.flushed()
        await self.outbox.flushed()
        return pushed and not self.outbox.closed

    def push(self, frame: Frame) -> bool:
        """Queue an encoded frame; never waits. False: the connection is closed, and it went nowhere."""
        if self.outbox.closed:
            return False
        self._host.fanout.push_one(self, frame)
        return True

    def send_error(self, error: BaseException | ClientError, *, request_id: str | int | None = None) -> None:
        """Tell the client that its message was not carried out; queued, never waits."""
        told = error if isinstance(error, ClientError) else describe(error)
        if told is not None:
            self.push(encode_frame(self.codec, told.to_message(request_id)))

    def _make_outbox(self, policy: SlowConsumer) -> Outbox:
        settings: _OutboxSettings = {
            "codec": self.codec,
            "limit_bytes": self._host.limits.outbox_bytes,
            "policy": policy,
            "counters": self._host.counters,
            "on_overflow": self._on_overflow,
        }
        if (sink := sink_of(self.websocket.scope)) is not None:
            return ReadyOutbox(sink, **settings)
        return TaskOutbox(self._write, self._start_writer, **settings)

    async def _write(self, frame: Frame) -> None:
        if frame.binary:
            await self.websocket.send_bytes(frame.payload)
        else:
            await self.websocket.send_text(frame.text)

    def _start_writer(self, outbox: TaskOutbox) -> None:
        self._host.tasks.spawn(self._run_writer(outbox), name=f"write to connection {self.id!r}")

    async def _run_writer(self, outbox: TaskOutbox) -> None:
        try:
            await outbox.run()
        except _GONE:
            self._end(1006, "")

    def _on_overflow(self) -> None:
        self.disconnect(CloseCode.TOO_SLOW)

    # -- closing

    async def close(self, code: int = CloseCode.NORMAL, reason: str | None = None) -> None:
        """Write what waits, then close with a code (RFC 6455 §7.4). Closing again does nothing.

        Args:
            code: A code of `CloseCode`, 1000, or one of the application's own in 3000-4999.
            reason: Text of the close frame, at most 123 bytes of UTF-8; None: the code's own.
        """
        if self.closed:
            return
        self._close_code, self._close_reason = int(code), reason_of(code) if reason is None else reason
        await self._finish()

    def disconnect(self, code: int = CloseCode.DISCONNECTED, reason: str | None = None) -> None:
        """Close without waiting: the close frame is written in the background."""
        if self.closed:
            return
        self._close_code, self._close_reason = int(code), reason_of(code) if reason is None else reason
        self._host.tasks.spawn(self._finish(), name=f"close connection {self.id!r}")

    async def _finish(self) -> None:
        try:
            async with asyncio.timeout(self._host.limits.close_timeout_s):
                self._host.fanout.flush()
                await self.outbox.flushed()
                self.outbox.close()
                await self.websocket.close(self._close_code or CloseCode.NORMAL, self._close_reason)
        except TimeoutError:
            logger.warning("connection %r does not take its close frame; its socket is dropped", self.id)
            self.outbox.abort()
        except _GONE:
            pass  # the client was faster
        finally:
            self._end(self._close_code or CloseCode.NORMAL, self._close_reason)

    def _end(self, code: int, reason: str) -> None:
        if self._close_code is None:
            self._close_code, self._close_reason = code, reason
        if not self._ended:
            self._ended = True
            self.outbox.close()
            if self._inbox is not None:
                self._inbox.end()
            self._host.on_closed(self)


def _utf8_size(payload: bytes | str, limit: int) -> int:
    if isinstance(payload, bytes) or len(payload) * 4 <= limit:
        return len(payload)
    return len(payload.encode("utf-8", "surrogatepass"))


def _id_of(data: JSON) -> str | int | None:
    found = data.get("id") if isinstance(data, dict) else None
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None
