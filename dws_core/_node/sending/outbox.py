"""The writing side of one connection: frames in order, bounded in bytes, never in anyone's way."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from dws_core._limits.backlog import Backlog, SlowConsumer
from dws_core._node.sending.ready_frames import FrameSink
from dws_core._node.stats import Counters
from dws_core._wire.codecs import Codec
from dws_core._wire.frames import Frame

_CHUNK_BYTES: Final = 65_536
"""What waits is joined to writes of about this size."""


class Outbox(ABC):
    """Takes frames without waiting and without raising; what the socket does not take at once waits here.

    Args:
        codec: The connection's.
        limit_bytes: Bytes that may wait, the server's own buffer included; None: no limit.
        policy: What happens over the limit.
        counters: Where drops are counted.
        on_overflow: Called once when the limit is passed and nothing may give way; nothing more is taken.

    Attributes:
        direct: Whether `write` may be used: nothing waits, and the socket takes more.
        closed: Whether everything goes nowhere.
        write: Writes ready frames at once; only while `direct`. An attribute, since it is called for each delivery.
    """

    __slots__ = (
        "_backlog", "_counters", "_drained", "_limit_bytes", "_on_overflow", "_policy", "closed", "codec", "direct", "write",
    )  # fmt: skip

    def __init__(
        self,
        *,
        codec: Codec,
        limit_bytes: int | None,
        policy: SlowConsumer,
        counters: Counters,
        on_overflow: Callable[[], None],
    ) -> None:
        self.codec: Codec = codec
        self.closed: bool = False
        self.direct: bool = False
        self.write: Callable[[bytes], object] = _nothing
        self._limit_bytes = limit_bytes
        self._policy = policy
        self._counters = counters
        self._on_overflow = on_overflow
        self._backlog: Backlog | None = None  # most connections keep up most of the time
        self._drained: asyncio.Event | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes that wait, those in the server's buffer included."""
        return self._beside_bytes() + (self._backlog.size_bytes if self._backlog is not None else 0)

    @abstractmethod
    def put(self, frames: Iterable[Frame]) -> None:
        """Take frames that may have to wait."""

    @abstractmethod
    def abort(self) -> None:
        """Drop the socket, as far as the server can."""

    @abstractmethod
    def _beside_bytes(self) -> int:
        """Return the bytes that have left the backlog and not the node."""

    def close(self) -> None:
        """Take no more frames and drop those that wait."""
        self.closed = True
        self.direct = False
        self._counters.plan_version += 1
        self._backlog = None
        self._notify()

    async def flushed(self) -> None:
        """Wait until nothing waits here or the outbox is closed."""
        while self._waits() and not self.closed:
            self._drained = self._drained or asyncio.Event()
            await self._drained.wait()

    async def idle(self) -> None:
        """Wait until nothing waits and the socket takes more, or the outbox is closed: the reader's own pace."""
        while self._busy() and not self.closed:
            self._drained = self._drained or asyncio.Event()
            await self._drained.wait()

    def _waits(self) -> bool:
        return self._backlog is not None

    def _busy(self) -> bool:
        return self._waits()

    def _queue(self, frame: Frame) -> None:
        if self._backlog is None:
            self._backlog = Backlog(self._limit_bytes, self._policy)
        dropped = self._backlog.put(frame, beside_bytes=self._beside_bytes())
        if dropped is None:
            self._counters.overflows += 1
            self.close()
            self._on_overflow()
        else:
            self._counters.dropped += dropped

    def _notify(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None


class ReadyOutbox(Outbox):
    """Writes ready frames to the server's buffer; they wait here while that is full."""

    __slots__ = ("_sink",)

    def __init__(
        self,
        sink: FrameSink,
        *,
        codec: Codec,
        limit_bytes: int | None,
        policy: SlowConsumer,
        counters: Counters,
        on_overflow: Callable[[], None],
    ) -> None:
        super().__init__(
            codec=codec, limit_bytes=limit_bytes, policy=policy, counters=counters, on_overflow=on_overflow
        )
        self._sink = sink
        self.direct = True
        self.write = sink.attach(self)

    def put(self, frames: Iterable[Frame]) -> None:
        """Write one by one for as long as the server's buffer has room; queue the others."""
        for frame in frames:
            if self.direct:
                self.write(frame.ready)
            elif not self.closed:
                self._queue(frame)

    def abort(self) -> None:
        """Drop the socket."""
        self._sink.abort()

    def pause(self) -> None:
        """Called by the sink: its buffer is full."""
        self.direct = False
        self._counters.plan_version += 1

    def resume(self) -> None:
        """Called by the sink: its buffer has room. Write what waits, until it is full again."""
        if self.closed:
            return
        self.direct = True
        self._counters.plan_version += 1
        while self.direct and self._backlog:
            self.write(_joined(self._backlog))
        if not self._backlog:
            self._backlog = None
            self._notify()

    def _beside_bytes(self) -> int:
        return self._sink.buffered_bytes()

    def _busy(self) -> bool:
        return not self.direct


class TaskOutbox(Outbox):
    """Writes through ASGI messages: one task from the first frame to the end, which sleeps while nothing waits.

    Args:
        write: Writes one frame to the socket; raises when the socket is gone.
        start_writer: Runs `run()` in the background.
        **kwargs: See `Outbox`.
    """

    __slots__ = ("_in_flight_bytes", "_start_writer", "_wake", "_write", "_writing")

    def __init__(
        self,
        write: Callable[[Frame], Awaitable[None]],
        start_writer: Callable[[TaskOutbox], object],
        *,
        codec: Codec,
        limit_bytes: int | None,
        policy: SlowConsumer,
        counters: Counters,
        on_overflow: Callable[[], None],
    ) -> None:
        super().__init__(
            codec=codec, limit_bytes=limit_bytes, policy=policy, counters=counters, on_overflow=on_overflow
        )
        self._write = write
        self._start_writer = start_writer
        self._writing = False
        self._wake: asyncio.Future[None] | None = None
        self._in_flight_bytes = 0

    def put(self, frames: Iterable[Frame]) -> None:
        """Queue and see that the writer runs."""
        starts = self._backlog is None
        for frame in frames:
            if not self.closed:
                self._queue(frame)
        if not self.closed:
            self._writing = True
            if starts:
                self._start_writer(self)
            else:
                self._wake_up()

    def close(self) -> None:
        """Take no more frames, drop those that wait, end the writer when its last write has ended."""
        super().close()
        self._wake_up()

    def abort(self) -> None:
        """Not possible through ASGI: the socket is left to the server's own time-outs."""

    async def run(self) -> None:
        """Write until closed. A failed write closes the outbox: the socket is gone."""
        try:
            while self._backlog is not None:
                await self._write_all(self._backlog)
                if self._backlog is not None:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
        finally:
            self._writing = False
            self.close()

    async def _write_all(self, backlog: Backlog) -> None:
        while backlog and not self.closed:
            frame = backlog.take()
            self._in_flight_bytes = len(frame)  # a stalled write counts
            await self._write(frame)
        self._in_flight_bytes = 0
        self._writing = False
        self._notify()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _waits(self) -> bool:
        return self._writing

    def _beside_bytes(self) -> int:
        return self._in_flight_bytes


def _nothing(data: bytes) -> None:
    """Stand for the write of an outbox that is never direct."""


def _joined(backlog: Backlog) -> bytes:
    """Take frames for one write."""
    parts, size = [], 0
    while backlog and size < _CHUNK_BYTES:
        ready = backlog.take().ready
        parts.append(ready)
        size += len(ready)
    return b"".join(parts)
