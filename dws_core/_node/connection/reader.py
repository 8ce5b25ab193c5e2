"""The reading half of a connection: socket to inbox, with checks of size, kind and rate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final, NoReturn, Self

from starlette.websockets import WebSocket, WebSocketDisconnect

from dws_core._errors import CodecError, ConfigurationError, ConnectionClosed, DWSError, InvalidMessage
from dws_core._limits.token_bucket import TokenBucket
from dws_core._node.connection.host import ConnectionHost
from dws_core._node.sending.outbox import Outbox
from dws_core._wire import server_messages
from dws_core._wire.client_errors import Refused, describe
from dws_core._wire.close_codes import ABNORMAL, NO_STATUS, CloseCode
from dws_core._wire.codecs import Codec, decode_id, id_of
from dws_core._wire.message import JSON, Message

SOCKET_CLOSED = (WebSocketDisconnect, RuntimeError, OSError)
"""Exceptions that servers and Starlette raise when a closing or closed socket is used."""


_UNLIMITED_PER_S: Final = 1e9
"""Rate of a bucket that only remembers the time of the last message."""

_REFUSALS_RECOVER_S: Final = 10.0
"""Time in seconds after which a client may be refused as often as at the beginning."""


class InboxEnded(Exception):
    """The client has disconnected and the inbox is empty."""


ENDED: Final = (InboxEnded, ConnectionClosed)


class Inbox:
    """A bounded queue between the reader and the handler, which may receive in several tasks.

    Args:
        limit: Maximum number of queued messages.

    Attributes:
        ended: Whether no more messages will arrive.
    """

    __slots__ = ("_freed", "_limit", "_queue", "_receivers", "ended")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: list[JSON] = []  # short, and an empty list is a tenth of an empty deque
        self._receivers: tuple[asyncio.Future[None], ...] = ()  # usually one, which a tuple holds in little memory
        self._freed: asyncio.Future[None] | None = None
        self.ended = False

    @property
    def full(self) -> bool:
        """Whether the queue is at its limit."""
        return len(self._queue) >= self._limit

    def put(self, message: JSON) -> None:
        """Queue a message. The caller has waited for `room`."""
        self._queue.append(message)
        self._wake_receivers()

    def end(self) -> None:
        """Mark the queue as ended: no more messages will arrive."""
        self.ended = True
        self._wake_receivers()

    async def room(self, timeout_s: float) -> bool:
        """Wait until a message can be queued. Return False after `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.full:
                    self._freed = asyncio.get_running_loop().create_future()
                    await self._freed
        except TimeoutError:
            return False
        return True

    async def get(self) -> JSON:
        """Remove and return the next message. Cancelling the wait loses no message.

        Raises:
            InboxEnded: The queue is empty and has ended.
        """
        while not self._queue:
            if self.ended:
                raise InboxEnded
            arrived = asyncio.get_running_loop().create_future()
            self._receivers = (*[other for other in self._receivers if not other.done()], arrived)
            await arrived
        message = self._queue.pop(0)
        _wake(self._freed)
        return message

    def _wake_receivers(self) -> None:
        """Wake all, because the first may be cancelled. Those that find nothing wait again."""
        receivers, self._receivers = self._receivers, ()
        for receiver in receivers:
            _wake(receiver)


class Turns:
    """Stands in for the inbox of a connection without a node: the tasks of its handler read one after the other.

    Args:
        read: Reads one message.
    """

    __slots__ = ("_lock", "_read")

    def __init__(self, read: Callable[[], Awaitable[JSON]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()

    async def get(self) -> JSON:
        """Read the next message.

        Raises:
            ConnectionClosed: The client has disconnected.
        """
        async with self._lock:
            return await self._read()

    def end(self) -> None:
        """Do nothing: `read` raises at the end."""


class JSONMessages:
    """Iterates over the messages of a client. An `anext` that is cancelled, for example by a timeout, ends nothing."""

    __slots__ = ("_next",)

    def __init__(self, receive: Callable[[], Awaitable[JSON]]) -> None:
        self._next = receive

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JSON:
        try:
            return await self._next()
        except ENDED:
            raise StopAsyncIteration from None


class SocketReader:
    """The reading half of `Connection`. A base class and not an attribute, to save memory on idle connections."""

    __slots__ = (
        "_bucket",
        "_close_code",
        "_close_reason",
        "_host",
        "_inbox",
        "_outbox",
        "_refusals",
        "codec",
        "websocket",
    )

    websocket: WebSocket
    codec: Codec
    _outbox: Outbox

    def __init__(self, host: ConnectionHost[Any]) -> None:
        self._host: ConnectionHost[Any] = host
        self._inbox: Inbox | Turns | None = None
        self._close_code: int | None = None
        self._close_reason = ""
        self._bucket: TokenBucket | None = None
        self._refusals: TokenBucket | None = None
        limits = host.limits
        if limits.messages_per_s is not None or limits.idle_s is not None:
            now = asyncio.get_running_loop().time()
            self._bucket = TokenBucket(limits.messages_per_s or _UNLIMITED_PER_S, limits.burst, now=now)

    @property
    def closed(self) -> bool:
        """Whether the socket is closed or closing. Messages sent from now on are discarded."""
        return self._close_code is not None

    @property
    def close_code(self) -> int | None:
        """Close code (RFC 6455 §7.4), 1006 if no close frame was received, None while the connection is open."""
        return self._close_code

    def disconnect(self, code: int = CloseCode.DISCONNECTED, reason: str | None = None) -> None:
        """Close without waiting. See `Connection.disconnect`."""
        raise NotImplementedError

    async def receive_json(self) -> JSON:
        """Return the client's next message, decoded. A malformed message is answered with an `error` and skipped.

        Several tasks may receive. Each message reaches one of them. A cancelled call loses no message.

        Raises:
            WebSocketDisconnect: The client has disconnected (Starlette's exception, as in the original library).
        """
        try:
            return await self._next()
        except ENDED:
            raise WebSocketDisconnect(self._close_code or ABNORMAL, self._close_reason) from None

    def iter_json(self) -> AsyncIterator[JSON]:
        """Iterate over the client's messages, decoded, until it disconnects."""
        return JSONMessages(self._next)

    def __aiter__(self) -> Self:
        """Iterate over the client's messages until it disconnects. Malformed ones are answered with an `error`."""
        return self

    async def __anext__(self) -> Message:
        """Return the client's next message. A call that is cancelled, for example by a timeout, loses no message."""
        while True:
            try:
                data = await self._next()
                return Message.from_client_message(data=data, untyped=self._host.untyped)
            except InvalidMessage as error:
                self._refuse(error, request_id=id_of(data))
            except ENDED:
                raise StopAsyncIteration from None

    def _next(self) -> Awaitable[JSON]:
        """Wait for the next message. Not a coroutine itself, which saves a frame per idle connection."""
        if self._inbox is None:
            self._inbox = Turns(self._read)
        return self._inbox.get()

    def _read_in_background(self, name: str, first: JSON = None) -> None:
        """Read until the client disconnects, independently of the handler, which receives the first message at once."""
        self._inbox = inbox = Inbox(self._host.limits.inbox_messages)
        if first is not None:
            inbox.put(first)
        self._host.tasks.spawn(self._fill(inbox), name=name)
        self.websocket.receive = _refuse_raw_receive  # type: ignore[method-assign]

    async def _fill(self, inbox: Inbox) -> None:
        try:
            while True:
                message = await self._read()
                if self._host.on_reply(self, message):
                    continue
                if inbox.full and not await inbox.room(self._host.limits.handler_stall_s):
                    busy = Refused("overloaded", "the handler does not keep up; try again later", temporary=True)
                    self._refuse(busy, request_id=id_of(message))
                    continue
                inbox.put(message)
        except ConnectionClosed:
            return  # the connection has ended, or it ends when its close frame is written
        except BaseException:
            self._end(ABNORMAL, "")
            raise

    async def _read(self) -> JSON:
        """Return the next valid message. Invalid ones are answered here.

        Raises:
            ConnectionClosed: The client has disconnected.
        """
        while True:
            try:
                event = await type(self.websocket).receive(self.websocket)
            except SOCKET_CLOSED:
                event = {"type": "websocket.disconnect", "code": ABNORMAL}
            if event["type"] == "websocket.disconnect":
                self._end(event.get("code", NO_STATUS), event.get("reason") or "")
            message = None if self.closed else self._checked(event)
            if self.closed:
                raise ConnectionClosed(self._close_code or ABNORMAL, self._close_reason, connection=self)
            if message is not None:
                return message[0]

    def _checked(self, event: MutableMapping[str, Any]) -> tuple[JSON] | None:
        """Return the message of a frame, or None if it was answered with an error or closed the connection."""
        refusal = self._check_rate()
        payload = None if self.closed else self._payload_of(event)
        if payload is None:
            return None
        if refusal is not None:
            self._refuse(refusal, request_id=decode_id(self.codec, payload))
            return None
        try:
            return (self.codec.decode(payload),)
        except CodecError as error:
            self._refuse(error)
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

    @property
    def _last_message_s(self) -> float:
        """Time of the client's last message, in seconds of the loop's clock. Only if `Limits.idle_s` is set."""
        return self._bucket.updated if self._bucket is not None else asyncio.get_running_loop().time()

    def _count(self, messages: int) -> None:
        """Count a request as several more messages.

        Raises:
            Refused: The client is over its rate.
        """
        if self._bucket is None or not messages:
            return
        if wait_s := self._bucket.take(asyncio.get_running_loop().time(), messages):
            self._count_refusal()
            raise _over_rate(wait_s)

    def _charge(self, messages: int) -> None:
        """Count a request that is already carried out as several more messages. The next ones wait for it."""
        if self._bucket is not None:
            self._bucket.charge(messages)

    def _check_rate(self) -> Refused | None:
        if self._bucket is None or not (wait_s := self._bucket.take(asyncio.get_running_loop().time())):
            return None
        self._count_refusal()
        return _over_rate(wait_s)

    def _count_refusal(self) -> None:
        """Close the connection of a client that goes on to send after many refusals."""
        limit, now = self._host.limits.flood_messages, asyncio.get_running_loop().time()
        if limit is None:
            return
        if self._refusals is None:
            self._refusals = TokenBucket(limit / _REFUSALS_RECOVER_S, limit, now=now)
        if self._refusals.take(now):
            self.disconnect(CloseCode.FLOODING)

    def _refuse(self, error: DWSError, *, request_id: str | int | None = None) -> None:
        """Answer a message with an `error`."""
        if (described := describe(error)) is not None:
            self._host.fanout.send(self, server_messages.error(described, request_id))

    def _end(self, code: int, reason: str) -> None:
        raise NotImplementedError


async def _refuse_raw_receive() -> NoReturn:
    """Stand in for `WebSocket.receive`, and so for all its methods that receive."""
    raise ConfigurationError(
        "the node reads this WebSocket itself, so websocket.receive_json(), receive_text() and the like get nothing.",
        fix="use `async for message in connection`, or connection.receive_json()",
    )


def _over_rate(wait_s: float) -> Refused:
    return Refused("rate-limited", "too many messages; slow down", temporary=True, retry_in_s=wait_s)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _utf8_size(payload: bytes | str, limit: int) -> int:
    if isinstance(payload, bytes) or len(payload) * 4 <= limit:
        return len(payload)
    return len(payload.encode("utf-8", "surrogatepass"))
