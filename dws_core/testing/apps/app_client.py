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
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from dws_core.plugin import JSON

_NEWS: Final = frozenset({"message", "gap", "error"})
"""Types of frames that assertions look at; the others answer or tell positions."""

_SHOWN: Final = 5


class AppClient:
    """Speaks the client protocol in JSON, frame by frame, and never waits for ever.

    Every wait ends after `within_s` seconds by an `AssertionError` that shows what came. For what a client does by itself
    (reconnect, resume, repeat) use `dws_core.client.Client`; both talk to the same server.

    Args:
        socket: An open connection.
        within_s: Seconds for each wait.

    Attributes:
        socket: The connection, of the package `websockets`.
        frames: Every frame that came, decoded.

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
        self._kept: deque[Any] = deque()  # came while something else was awaited
        self._ids = count(1)
        self._reads = True

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
        """Connect; close at the end of the block.

        Args:
            url: `ws://host:port/path`.
            token: Sent as `Authorization: Bearer`.
            headers: Further header fields.
            origin: The `Origin` header, as a browser's page sends it.
            subprotocols: What is offered; frames are read as JSON whatever is chosen.
            receive_buffer_bytes: Of the socket: a small one makes a client that does not read felt soon.
            within_s: Seconds for each wait, the handshake included.

        Raises:
            websockets.exceptions.InvalidStatus: The handshake was refused; `.response.status_code` says how.
        """
        fields = dict(headers or {})
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        connection = await connect(
            url,
            sock=await _dial(url, receive_buffer_bytes, within_s),
            additional_headers=fields,
            origin=None if origin is None else Origin(origin),
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            compression=None,  # sizes in tests are sizes on the wire
            open_timeout=within_s,
            close_timeout=within_s,
            max_size=None,
        )
        client = cls(connection, within_s=within_s)
        try:
            yield client
        finally:
            await client.close()

    # -- talking

    async def send(self, **members: Any) -> None:
        """Send a frame as it is."""
        await self.socket.send(json.dumps(members))

    async def request(self, **members: Any) -> Any:
        """Send a frame with an id and return the frame that answers it; what comes before it is kept."""
        members.setdefault("id", f"r{next(self._ids)}")
        await self.send(**members)
        while (frame := await self._read(f"the answer to {members}")).get("id") != members["id"]:
            self._kept.append(frame)
        return frame

    async def subscribe(self, filter_: str) -> None:
        """Subscribe; from then on nothing that is published is missed.

        Raises:
            AssertionError: The node refuses.
        """
        _expect_ack(await self.request(type="subscribe", topic=filter_), f"subscribe to {filter_!r}")

    async def unsubscribe(self, filter_: str) -> None:
        """Take a filter back.

        Raises:
            AssertionError: The node refuses.
        """
        _expect_ack(await self.request(type="unsubscribe", topic=filter_), f"unsubscribe from {filter_!r}")

    async def publish(self, topic: str, data: JSON) -> None:
        """Publish as this client; return when the broker has it.

        Raises:
            AssertionError: The node refuses.
        """
        _expect_ack(await self.request(type="send", topic=topic, data=data), f"publish to {topic!r}")

    async def receive(self) -> Any:
        """Return the next frame, of whatever type.

        Raises:
            AssertionError: None came in time, or the connection is closed.
        """
        return self._kept.popleft() if self._kept else await self._read("a frame")

    # -- assertions

    async def assert_received(self, *data: JSON, topic: str | None = None) -> None:
        """Check that the next messages have these data, in this order.

        Args:
            *data: One for each message.
            topic: Where all of them were published; None: anywhere.

        Raises:
            AssertionError: Another message, an error or a gap came; or nothing in time.
        """
        for number, expected in enumerate(data, 1):
            wanted = f"message {number} of {len(data)}, {expected!r}"
            frame = await self._next_news(wanted)
            if frame["type"] != "message" or frame.get("data") != expected:
                raise AssertionError(f"expected {wanted}, but got {_show(frame)}")
            if topic is not None and frame.get("topic") != topic:
                raise AssertionError(f"expected {wanted}, on topic {topic!r}, but it came on {frame.get('topic')!r}")

    async def assert_nothing_received(
        self, *, topic: str | None = None, publish: Callable[[str, str], Awaitable[object]] | None = None
    ) -> None:
        """Check that no message, error or gap has come that no assertion has taken.

        Proven by a sentinel, without waiting: a message is published after all that might come, and must come first. Publish
        what must not arrive, await it, then call this.

        Args:
            topic: Where the sentinel is published; this client must be subscribed to it. None: a topic of its own. On a
                broker with several partitions choose one that is in the partition of what must not come.
            publish: Who publishes it, for example `manager.publish`; None: this client.

        Raises:
            AssertionError: Something came, or the sentinel did not.
        """
        sentinel = f"sentinel-{secrets.token_hex(8)}"
        name = topic or f"dws-testing/{sentinel}"
        try:
            if topic is None:
                await self.subscribe(name)
            await (publish or self.publish)(name, sentinel)
        except AssertionError as error:
            fix = "Fix: give a topic that it is subscribed to, and publish=manager.publish"
            raise AssertionError(f"the sentinel could not be published: {error}. {fix}") from error
        came = []
        while (frame := await self._next_news("the sentinel")).get("data") != sentinel:
            came.append(frame)
        if topic is None:
            await self.unsubscribe(name)
        if came:
            raise AssertionError(f"expected nothing, but got {len(came)}: {'; '.join(map(_show, came[:_SHOWN]))}")

    async def assert_gap(self, reason: str | None = None) -> None:
        """Check that what comes next is the news that messages may have been lost.

        Raises:
            AssertionError: Something else came; or nothing in time.
        """
        frame = await self._next_news("a gap")
        if frame["type"] != "gap" or reason not in (None, frame["reason"]):
            raise AssertionError(f"expected a gap{f' because of {reason}' if reason else ''}, but got {_show(frame)}")

    async def assert_closed(self, code: int) -> None:
        """Check that the node closes with this code; 1006: the connection ends without a close frame.

        Frames that come before it are only kept in `frames`.

        Raises:
            AssertionError: It closes with another one, or not in time.
        """
        try:
            async with asyncio.timeout(self._within_s):
                while True:
                    self.frames.append(json.loads(await self.socket.recv()))
        except TimeoutError:
            raise AssertionError(f"the connection was not closed in {self._within_s} s; {self._so_far()}") from None
        except ConnectionClosed as error:
            if _code(error) != code:
                raise AssertionError(f"expected the close code {code}, but got {_describe(error)}") from error

    # -- behaving badly

    def stop_reading(self) -> None:
        """Be slow: read nothing more, pings neither. What the node sends fills the buffers of both systems."""
        self._reads = False
        self.socket.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again, from where it stopped."""
        self._reads = True
        self.socket.transport.resume_reading()

    def vanish(self) -> None:
        """Be dead: the connection ends without a close frame, as when a process is killed."""
        self.socket.transport.abort()

    async def close(self) -> None:
        """Close with 1000; one that does not read is only dropped."""
        if not self._reads:
            self.socket.transport.abort()
        await self.socket.close()

    # -- inside

    async def _read(self, wanted: str) -> Any:
        try:
            async with asyncio.timeout(self._within_s):
                frame = json.loads(await self.socket.recv())
        except TimeoutError:
            raise AssertionError(f"waited {self._within_s} s for {wanted}; {self._so_far()}") from None
        except ConnectionClosed as error:
            text = f"waited for {wanted}, but the connection was {_describe(error)}; {self._so_far()}"
            raise AssertionError(text) from error
        self.frames.append(frame)
        return frame

    async def _next_news(self, wanted: str) -> Any:
        while True:
            frame = self._kept.popleft() if self._kept else await self._read(wanted)
            if frame.get("type") in _NEWS:
                return frame

    def _so_far(self) -> str:
        shown = "; ".join(map(_show, self.frames[-_SHOWN:]))
        return f"{len(self.frames)} frames came before, the last ones: {shown}" if shown else "no frame came before"


def _expect_ack(answer: Any, what: str) -> None:
    if answer.get("type") != "ack":
        raise AssertionError(f"the node refused to {what}: {_show(answer)}")


def _show(frame: Any) -> str:
    match frame:
        case {"type": "message", "data": data}:
            return f"{data!r} on topic {frame['topic']!r}" if "topic" in frame else f"{data!r} sent to the connection"
        case {"type": "gap", "reason": reason}:
            return f"a gap because of {reason}"
        case {"type": "error", "code": code, "message": message}:
            return f"the error {code!r} ({message})"
    return repr(frame)


def _describe(error: ConnectionClosed) -> str:
    reason = f" ({error.rcvd.reason})" if error.rcvd is not None and error.rcvd.reason else ""
    return f"closed with {_code(error)}{reason}"


def _code(error: ConnectionClosed) -> int:
    return 1006 if error.rcvd is None else error.rcvd.code


async def _dial(url: str, receive_buffer_bytes: int | None, within_s: float) -> socket.socket:
    """Open the TCP connection by hand: with its buffer, and past the proxies of the environment."""
    parts = urlsplit(url)
    dialled = socket.socket()
    try:
        if receive_buffer_bytes is not None:
            dialled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        dialled.setblocking(False)
        async with asyncio.timeout(within_s):
            await asyncio.get_running_loop().sock_connect(dialled, (parts.hostname, parts.port or 80))
    except BaseException:
        dialled.close()
        raise
    return dialled
