"""What waits to be written to one connection: frames in order, bounded in bytes, written by one task."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from dws_core._wire.frames import Frame


class Outbox:
    """A bounded queue of frames and the one writer that empties it.

    `push` never waits and never raises: fan-out only appends. The writer runs only while there is something to write.

    Args:
        write: Writes one frame to the socket; raises when the socket is gone.
        start_writer: Runs `drain()` in the background; called when the first frame arrives.
        on_overflow: Called once when the limit is passed; nothing more is taken.
        limit_bytes: Bytes that may wait; None: no limit.
    """

    __slots__ = (
        "_drained",
        "_limit_bytes",
        "_on_overflow",
        "_queue",
        "_start_writer",
        "_write",
        "_writing",
        "closed",
        "size_bytes",
    )

    def __init__(
        self,
        write: Callable[[Frame], Awaitable[None]],
        *,
        start_writer: Callable[[Outbox], object],
        on_overflow: Callable[[], None],
        limit_bytes: int | None,
    ) -> None:
        self._write = write
        self._start_writer = start_writer
        self._on_overflow = on_overflow
        self._limit_bytes = limit_bytes
        self._queue: deque[Frame] | None = None  # most connections are silent most of the time
        self._writing = False
        self._drained: asyncio.Event | None = None
        self.closed: bool = False
        self.size_bytes: int = 0

    def push(self, frame: Frame) -> bool:
        """Queue a frame. False: the outbox is closed, or this frame is over its limit; nothing was queued."""
        if self.closed:
            return False
        if self._limit_bytes is not None and self.size_bytes + len(frame) > self._limit_bytes and self.size_bytes:
            self.close()
            self._on_overflow()
            return False
        if self._queue is None:
            self._queue = deque()
        self._queue.append(frame)
        self.size_bytes += len(frame)
        if not self._writing:
            self._writing = True
            self._start_writer(self)
        return True

    def close(self) -> None:
        """Take no more frames and drop those that wait."""
        self.closed = True
        self._queue = None
        self.size_bytes = 0
        self._notify()

    async def drain(self) -> None:
        """Write until nothing waits. A failed write closes the outbox: the socket is gone."""
        try:
            while self._queue:
                frame = self._queue[0]  # counted until it is written, so that a stalled write fills the outbox
                await self._write(frame)
                if self._queue:
                    self._queue.popleft()
                    self.size_bytes -= len(frame)
        except BaseException:
            self.close()
            raise
        finally:
            self._writing = False
            self._queue = None
            self._notify()

    async def flushed(self) -> None:
        """Wait until nothing waits to be written or the outbox is closed."""
        while self._writing and not self.closed:
            self._drained = self._drained or asyncio.Event()
            await self._drained.wait()

    def _notify(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None
