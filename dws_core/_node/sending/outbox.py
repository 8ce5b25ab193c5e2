"""The writing side of one connection: frames in order, bounded in bytes, without blocking the sender."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dws_core._limits.backlog import Backlog, SlowConsumer
from dws_core._node.sending.first_step import rest_of, start_in_task
from dws_core._node.sending.overruns import BURST_LIMITS, STALL_S, Overruns
from dws_core._node.sending.ready_frames import FrameSink
from dws_core._node.stats import Counters
from dws_core._wire.codecs import Codec
from dws_core._wire.frames import Frame

CHUNK_BYTES: Final = 65_536
"""Maximum size of one write, in bytes: a socket that is full after the first write is detected before the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxSettings:
    """Settings of one outbox. It reads them once.

    Attributes:
        codec: Codec of the connection.
        limit_bytes: Maximum number of queued bytes, including the server's buffer. If None, there is no limit.
        policy: Which messages are dropped over the limit.
        counters: Counts drops.
        overruns: The outboxes of the node that are over their limit.
        on_overflow: Called once when the limit is exceeded for too long and no message may be dropped. The outbox is
            closed then.
    """

    codec: Codec
    limit_bytes: int | None
    policy: SlowConsumer
    counters: Counters
    overruns: Overruns
    on_overflow: Callable[[], None]


class Outbox(ABC):
    """Accepts frames without waiting or raising. Frames that the socket does not accept yet are queued.

    Attributes:
        codec: Codec of the connection.
        direct: Whether `write` may be called: nothing is queued and the socket accepts data.
        closed: Whether frames are discarded.
        write: Writes ready frames immediately. Call it only while `direct`. An attribute because it is called for each
            delivery.
    """

    __slots__ = (
        "_backlog", "_counters", "_drained", "_limit_bytes", "_on_overflow", "_overruns", "_policy", "closed", "codec",
        "direct", "write",
    )  # fmt: skip

    def __init__(self, settings: OutboxSettings) -> None:
        self.codec: Codec = settings.codec
        self.closed: bool = False
        self.direct: bool = False
        self.write: Callable[[bytes], object] = _discard
        self._limit_bytes = settings.limit_bytes
        self._policy = settings.policy
        self._counters = settings.counters
        self._overruns = settings.overruns
        self._on_overflow = settings.on_overflow
        self._backlog: Backlog | None = None  # most connections keep up most of the time
        self._drained: asyncio.Event | None = None

    @property
    def size_bytes(self) -> int:
        """Number of queued bytes, including the server's buffer."""
        return self._sent_bytes() + (self._backlog.size_bytes if self._backlog is not None else 0)

    @abstractmethod
    def put(self, frames: Iterable[Frame]) -> None:
        """Write or queue frames."""

    @abstractmethod
    def abort(self) -> None:
        """Drop the socket, as far as the server supports it."""

    @abstractmethod
    def _sent_bytes(self) -> int:
        """Return the number of bytes that have left the backlog but not the node."""

    def close(self) -> None:
        """Discard the queued frames and all later ones."""
        self.closed = True
        self.direct = False
        self._counters.plan_version += 1
        self._backlog = None
        self._overruns.end(self)
        self._notify()

    @property
    def moved_s(self) -> float:
        """Time when the socket last accepted queued data, or when it stopped to, in seconds of the loop's clock."""
        return self._backlog.moved_s if self._backlog is not None else asyncio.get_running_loop().time()

    def overflow(self) -> None:
        """Close the connection, because it is too slow."""
        self._counters.overflows += 1
        self.close()
        self._on_overflow()

    async def read(self) -> None:
        """Wait until nothing is queued or the outbox is closed, as long as the client reads."""
        loop = asyncio.get_running_loop()
        while self._backlog is not None and (left_s := self.moved_s + STALL_S - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self.flushed()

    async def flushed(self) -> None:
        """Wait until nothing is queued here or the outbox is closed."""
        while self._queued() and not self.closed:
            self._drained = self._drained or asyncio.Event()
            await self._drained.wait()

    @property
    def busy(self) -> bool:
        """Whether `idle` waits."""
        return self._busy() and not self.closed

    async def idle(self) -> None:
        """Wait until nothing is queued and the socket accepts data, or the outbox is closed: the client's own pace."""
        while self.busy:
            self._drained = self._drained or asyncio.Event()
            await self._drained.wait()

    def _queued(self) -> bool:
        return self._backlog is not None

    def _busy(self) -> bool:
        return self._queued()

    def _queue(self, frame: Frame) -> None:
        if self._backlog is None:
            self._backlog = Backlog(self._limit_bytes, self._policy, moved_s=asyncio.get_running_loop().time())
        dropped = self._backlog.put(frame, sent_bytes=self._sent_bytes())
        if dropped is not None:
            self._counters.dropped += dropped
        elif self.size_bytes > BURST_LIMITS * (self._limit_bytes or 0):
            self.overflow()
        else:
            self._overruns.begin(self)

    def _moved(self) -> None:
        """Note that the socket has accepted queued data."""
        if self._backlog is not None:
            self._backlog.moved_s = asyncio.get_running_loop().time()
        if self._overruns and 2 * self.size_bytes <= (self._limit_bytes or 0):
            self._overruns.end(self)

    def _notify(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None


class ReadyOutbox(Outbox):
    """Writes ready frames to the server's buffer. Frames are queued here while that buffer is full."""

    __slots__ = ("_sink",)

    def __init__(self, sink: FrameSink, settings: OutboxSettings) -> None:
        super().__init__(settings)
        self._sink = sink
        self.direct = True
        self.write = sink.attach(self)

    def put(self, frames: Iterable[Frame]) -> None:
        """Write frames one by one while the server's buffer has room. Queue the others."""
        for frame in frames:
            if self.direct:
                self.write(frame.ready)
            elif not self.closed:
                self._queue(frame)

    def abort(self) -> None:
        """Drop the socket."""
        self._sink.abort()

    def pause(self) -> None:
        """Called by the sink when its buffer is full."""
        self.direct = False
        self._counters.plan_version += 1

    def resume(self) -> None:
        """Called by the sink when its buffer has room. Write queued frames until the buffer is full again."""
        if self.closed:
            return
        self.direct = True
        self._counters.plan_version += 1
        while self.direct and self._backlog:
            self.write(_joined(self._backlog))
        if not self._backlog:
            self._backlog = None
            self._notify()
        self._moved()

    def _sent_bytes(self) -> int:
        return self._sink.buffered_bytes()

    def _busy(self) -> bool:
        return not self.direct


SendMessage: TypeAlias = Callable[[MutableMapping[str, Any]], Coroutine[Any, Any, None]]
StartWriter: TypeAlias = "Callable[[TaskOutbox, Context], asyncio.Task[None]]"


class TaskOutbox(Outbox):
    """Writes through ASGI messages.

    Most servers accept a message at once. So the coroutine that writes it is started here, and only if it waits, the
    writer continues it. The coroutine runs as a part of the writer from its beginning, as if the writer awaited it.

    Args:
        send: Sends an ASGI message. Raises if the socket is closed.
        start_writer: Runs `run()` as a task in the given context.
        settings: See `OutboxSettings`.
    """

    __slots__ = ("_in_flight_bytes", "_running", "_send", "_start_writer", "_unfinished", "_wake", "_writing")

    def __init__(self, send: SendMessage, start_writer: StartWriter, settings: OutboxSettings) -> None:
        super().__init__(settings)
        self._send = send
        self._start_writer = start_writer
        self._running: tuple[asyncio.Task[None], Context] | None = None
        self._writing = False
        self._unfinished: Awaitable[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._in_flight_bytes = 0

    def put(self, frames: Iterable[Frame]) -> None:
        """Write frames one by one as long as the server accepts them at once. Queue the others."""
        for frame in frames:
            if self.closed:
                return
            if self._writing:
                self._queue(frame)
                continue
            if self._running is None:
                context = copy_context()
                self._running = self._start_writer(self, context), context
            coroutine = self._send(_message(frame))
            try:
                waits_for = start_in_task(coroutine, *self._running)
            except StopIteration:
                continue
            except Exception as error:  # noqa: BLE001 -- the writer raises it
                self._leave_to_writer(_raise(error), frame)
            else:
                self._leave_to_writer(rest_of(coroutine, waits_for), frame)

    def close(self) -> None:
        """Discard all frames and end the writer after its current write."""
        super().close()
        self._wake_up()

    def abort(self) -> None:
        """Do nothing, because ASGI cannot drop a socket. The server's own timeouts apply."""

    async def run(self) -> None:
        """Finish the writes that wait, until closed. A failed write closes the outbox, because the socket is closed."""
        try:
            while self._unfinished is not None or not self.closed:
                if self._unfinished is not None:
                    await self._finish(self._unfinished)
                else:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
        finally:
            self._writing = False
            self.close()

    async def _finish(self, unfinished: Awaitable[None]) -> None:
        self._unfinished = None
        await unfinished
        while self._backlog and not self.closed:
            frame = self._backlog.take()
            self._in_flight_bytes = len(frame)  # a stalled write counts
            self._moved()
            await self._send(_message(frame))
        self._in_flight_bytes = 0
        self._backlog = None
        self._writing = False
        self._moved()
        self._notify()

    def _leave_to_writer(self, unfinished: Awaitable[None], frame: Frame) -> None:
        self._unfinished, self._writing, self._in_flight_bytes = unfinished, True, len(frame)
        self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _queued(self) -> bool:
        return self._writing

    def _sent_bytes(self) -> int:
        return self._in_flight_bytes


def _message(frame: Frame) -> dict[str, Any]:
    if frame.binary:
        return {"type": "websocket.send", "bytes": frame.payload}
    return {"type": "websocket.send", "text": frame.text}


async def _raise(error: Exception) -> None:
    raise error


def _discard(data: bytes) -> None:
    """Stand in for `write` of an outbox that is never direct."""


def _joined(backlog: Backlog) -> bytes:
    """Remove frames for one write from the backlog and join them."""
    parts, size = [], 0
    while backlog and size < CHUNK_BYTES:
        ready = backlog.take().ready
        parts.append(ready)
        size += len(ready)
    return b"".join(parts)
