"""A client of the application under test."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final, Self
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from dws_core.plugin import JSON

_ASSERTED_TYPES: Final = frozenset({"message", "gap", "error"})
"""Types of frames that assertions check. The other types are replies and positions."""

_MAX_SHOWN: Final = 5
_MAX_SHOWN_BYTES: Final = 300


class AppClient:
    """A test client that sends and receives single frames of the client protocol in JSON, with a timeout for each wait.

    After `within_s` seconds, a wait raises an `AssertionError` that shows the received frames. This client does not
    reconnect, resume or retry. To test that, use `dws_core.client.Client`, which works with the same server.

    Args:
        socket: An open connection.
        within_s: Timeout of each wait, in seconds.

    Attributes:
        socket: The connection, of the package `websockets`.
        frames: All received frames, decoded.

    Example:
        ```python
        async with AppClient.open("ws://127.0.0.1:8000/ws/alice") as alice:
            await alice.subscribe("chat/#")
            await alice.publish("chat/lobby", "hello")
            await alice.assert_received("hello", topic="chat/lobby")
            await alice.assert_nothing_received()
        ```
    """

    def __init__(self, socket: ClientConnection, *, within_s: float = 10.0) -> None:
        self.socket: ClientConnection = socket
        self.frames: list[Any] = []
        self._within_s = within_s
        self._unread: deque[Any] = deque()  # frames that arrived before an awaited reply
        self._ids = count(1)
        self._is_reading = True

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        receive_buffer_bytes: int | None = None,
        within_s: float = 10.0,
    ) -> AsyncIterator[Self]:
        """Connect, and close at the end of the block.

        Args:
            url: `ws://host:port/path`.
            token: Token for the header field `Authorization: Bearer`. If None, none is sent.
            headers: Further header fields.
            origin: Value of the `Origin` header field, which browsers send.
            subprotocols: Offered subprotocols. Frames are decoded as JSON regardless of the selected one.
            receive_buffer_bytes: Size of the socket's receive buffer. With a small one, the node notices soon that the
                client does not read. If None, the default of the system.
            within_s: Timeout of each wait, the handshake included, in seconds.

        Raises:
            websockets.exceptions.InvalidStatus: The handshake was refused. `.response.status_code` is the HTTP status. See
                also `assert_refused`.
            AssertionError: The handshake was not answered in time.
        """
        fields = dict(headers or {})
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        async with _limit(within_s, lambda: f"waited {within_s} s for the answer to the handshake of {url}"):
            connection = await connect(
                url,
                sock=await _open_socket(url, receive_buffer_bytes),
                additional_headers=fields,
                origin=None if origin is None else Origin(origin),
                subprotocols=[Subprotocol(name) for name in subprotocols] or None,
                compression=None,  # so that sizes in tests are sizes on the wire
                open_timeout=None,
                close_timeout=within_s,
                max_size=None,
            )
        client = cls(connection, within_s=within_s)
        try:
            yield client
        finally:
            await client.close()

    @classmethod
    async def assert_refused(cls, status: int, url: str, **options: Any) -> None:
        """Check that a handshake is refused with this HTTP status, before it is accepted.

        A connection that is accepted first, and then closed, is checked with `assert_closed`.

        Args:
            status: The HTTP status, for example 401.
            url: `ws://host:port/path`.
            **options: Options of `open`.

        Raises:
            AssertionError: The handshake was accepted, refused with another status, or not answered in time.
        """
        try:
            async with cls.open(url, **options):
                pass
        except InvalidStatus as error:
            if error.response.status_code != status:
                why = error.response.body[:_MAX_SHOWN_BYTES].decode(errors="replace")
                raise AssertionError(
                    f"expected {url} to refuse with HTTP {status}, but it refused with {error.response.status_code}: {why}"
                ) from error
        else:
            raise AssertionError(f"expected {url} to refuse with HTTP {status}, but it accepted the handshake")

    # -- requests

    async def send(self, **members: Any) -> None:
        """Send a frame unchanged.

        Raises:
            AssertionError: The node did not read it in time.
        """
        async with _limit(self._within_s, lambda: f"waited {self._within_s} s for the node to read {_show(members)}"):
            await self.socket.send(json.dumps(members))

    async def request(self, **members: Any) -> Any:
        """Send a frame with an id and return the reply. Frames that arrive before the reply are kept."""
        members.setdefault("id", f"r{next(self._ids)}")
        await self.send(**members)
        while (frame := await self._read(f"the reply to {members}")).get("id") != members["id"]:
            self._unread.append(frame)
        return frame

    async def subscribe(self, filter_: str) -> None:
        """Subscribe to a filter. Every later publish is received.

        Raises:
            AssertionError: The node refuses.
        """
        _expect_ack(await self.request(type="subscribe", topic=filter_), f"subscribe to {filter_!r}")

    async def unsubscribe(self, filter_: str) -> None:
        """Unsubscribe from a filter.

        Raises:
            AssertionError: The node refuses.
        """
        _expect_ack(await self.request(type="unsubscribe", topic=filter_), f"unsubscribe from {filter_!r}")

    async def publish(self, topic: str, data: JSON) -> None:
        """Publish as this client. Return when the broker has stored the message.

        Raises:
            AssertionError: The node refuses.
        """
        _expect_ack(await self.request(type="send", topic=topic, data=data), f"publish to {topic!r}")

    async def receive(self) -> Any:
        """Return the next frame of any type.

        Raises:
            AssertionError: No frame arrived in time, or the connection is closed.
        """
        return self._unread.popleft() if self._unread else await self._read("a frame")

    # -- assertions

    async def assert_received(self, *data: JSON, topic: str | None = None) -> None:
        """Check that the next messages have these data, in this order.

        Args:
            *data: Data of each message.
            topic: Topic of all messages. If None, the topics are not checked.

        Raises:
            AssertionError: Another message, an error or a gap arrived, or nothing in time.
        """
        for number, expected in enumerate(data, 1):
            wanted = f"message {number} of {len(data)}, {expected!r}"
            frame = await self._next_asserted(wanted)
            if frame["type"] != "message" or frame.get("data") != expected:
                raise AssertionError(f"expected {wanted}, but received {_show(frame)}")
            if topic is not None and frame.get("topic") != topic:
                raise AssertionError(f"expected {wanted}, on topic {topic!r}, but its topic is {frame.get('topic')!r}")

    async def assert_nothing_received(
        self, *, topic: str | None = None, publish: Callable[[str, str], Awaitable[object]] | None = None
    ) -> None:
        """Check that no further message, error or gap has arrived.

        Publish the message that must not arrive, await the publish, and then call this. It publishes a sentinel, which
        must be the next message. No time is spent waiting.

        Args:
            topic: Topic of the sentinel, to which this client must be subscribed. If None, a new topic. On a broker
                with several partitions, choose a topic in the partition of the message that must not arrive.
            publish: Function that publishes the sentinel, for example `manager.publish`. If None, this client does.

        Raises:
            AssertionError: A frame arrived, or the sentinel did not.
        """
        sentinel = f"sentinel-{secrets.token_hex(8)}"
        name = topic or f"dws-testing/{sentinel}"
        try:
            if topic is None:
                await self.subscribe(name)
            async with _limit(self._within_s, lambda: f"waited {self._within_s} s for {publish or self.publish}"):
                await (publish or self.publish)(name, sentinel)
        except AssertionError as error:
            fix = "Fix: pass the topic of a subscription of this client, and publish=manager.publish"
            raise AssertionError(f"the sentinel was not published: {error}. {fix}") from error
        frames = []
        while (frame := await self._next_asserted("the sentinel")).get("data") != sentinel:
            frames.append(frame)
        if topic is None:
            await self.unsubscribe(name)
        if frames:
            shown = "; ".join(map(_show, frames[:_MAX_SHOWN]))
            raise AssertionError(f"expected nothing, but received {len(frames)}: {shown}")

    async def assert_gap(self, reason: str | None = None) -> None:
        """Check that the next frame is a gap.

        Args:
            reason: Reason of the gap. If None, the reason is not checked.

        Raises:
            AssertionError: Another frame arrived, or nothing in time.
        """
        frame = await self._next_asserted("a gap")
        if frame["type"] != "gap" or reason not in (None, frame["reason"]):
            wanted = f"a gap with the reason {reason}" if reason else "a gap"
            raise AssertionError(f"expected {wanted}, but received {_show(frame)}")

    async def assert_closed(self, code: int) -> None:
        """Check that the node closes the connection with this code. Earlier frames are only added to `frames`.

        Args:
            code: The close code. 1006 means that the connection ends without a close frame.

        Raises:
            AssertionError: The node closes with another code, or not in time.
        """
        try:
            async with _limit(self._within_s, lambda: f"waited {self._within_s} s for the close. {self._history()}"):
                while True:
                    self.frames.append(json.loads(await self.socket.recv()))
        except ConnectionClosed as error:
            if _code(error) != code:
                raise AssertionError(
                    f"expected the close code {code}, but the connection was {_describe(error)}"
                ) from error

    # -- misbehaviour

    def stop_reading(self) -> None:
        """Act like a slow client: read no frames and no pings, so that the buffers of both systems become full."""
        self._is_reading = False
        self.socket.transport.pause_reading()

    def resume_reading(self) -> None:
        """Continue to read."""
        self._is_reading = True
        self.socket.transport.resume_reading()

    def vanish(self) -> None:
        """Act like a killed process: end the connection without a close frame."""
        self.socket.transport.abort()

    async def close(self) -> None:
        """Close with 1000. After `stop_reading`, end the connection without a close frame."""
        if not self._is_reading:
            self.socket.transport.abort()
        await self.socket.close()

    # -- internals

    async def _read(self, wanted: str) -> Any:
        try:
            async with _limit(self._within_s, lambda: f"waited {self._within_s} s for {wanted}. {self._history()}"):
                frame = json.loads(await self.socket.recv())
        except ConnectionClosed as error:
            text = f"waited for {wanted}, but the connection was {_describe(error)}. {self._history()}"
            raise AssertionError(text) from error
        self.frames.append(frame)
        return frame

    async def _next_asserted(self, wanted: str) -> Any:
        while True:
            frame = self._unread.popleft() if self._unread else await self._read(wanted)
            if frame.get("type") in _ASSERTED_TYPES:
                return frame

    def _history(self) -> str:
        shown = "; ".join(map(_show, self.frames[-_MAX_SHOWN:]))
        return f"Received {len(self.frames)} frames before, the last ones: {shown}" if shown else "Received no frames"


def _expect_ack(reply: Any, request: str) -> None:
    if reply.get("type") != "ack":
        raise AssertionError(f"the node refused to {request}: {_show(reply)}")


def _show(frame: Any) -> str:
    match frame:
        case {"type": "message", "data": data}:
            return f"{data!r} on topic {frame['topic']!r}" if "topic" in frame else f"{data!r} sent to the connection"
        case {"type": "gap", "reason": reason}:
            return f"a gap with the reason {reason}"
        case {"type": "error", "code": code, "message": message}:
            return f"the error {code!r} ({message})"
    return repr(frame)


def _describe(error: ConnectionClosed) -> str:
    reason = f" ({error.rcvd.reason})" if error.rcvd is not None and error.rcvd.reason else ""
    return f"closed with {_code(error)}{reason}"


def _code(error: ConnectionClosed) -> int:
    return 1006 if error.rcvd is None else error.rcvd.code


@asynccontextmanager
async def _limit(seconds: float, failure: Callable[[], str]) -> AsyncIterator[None]:
    """Raise an AssertionError after a time. A `TimeoutError` of the block itself is not converted."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise AssertionError(failure()) from None
        raise


async def _open_socket(url: str, receive_buffer_bytes: int | None) -> socket.socket:
    """Open the TCP connection with a receive buffer of this size, without the proxies of the environment."""
    parts = urlsplit(url)
    opened = socket.socket()
    try:
        if receive_buffer_bytes is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, (parts.hostname, parts.port or 80))
    except BaseException:
        opened.close()
        raise
    return opened
