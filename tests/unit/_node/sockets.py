"""Sockets that tests control directly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from contextvars import Context
from typing import Any

from dws_core._limits.backlog import SlowConsumer
from dws_core._node.sending.outbox import OutboxSettings, ReadyOutbox, TaskOutbox
from dws_core._node.sending.overruns import Overruns
from dws_core._node.sending.ready_frames import FrameListener
from dws_core._node.stats import Counters
from dws_core._wire.codecs import Codec, JSONCodec
from dws_core._wire.frames import Frame

JSON = JSONCodec()


class Sink:
    """A server's buffer: full after `room` writes, until `read`."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.writes: list[bytes] = []
        self.late: list[bytes] = []  # written after the outbox was notified of the close
        self.room = room
        self.open = True
        self.aborted = False
        self.waiting = 0
        self.listener: FrameListener

    def attach(self, listener: FrameListener) -> Callable[[bytes], object]:
        self.listener = listener
        return self.write

    def write(self, data: bytes) -> None:
        if not self.open:
            self.late.append(data)
            return
        self.writes.append(data)
        self.room -= 1
        if self.room == 0:
            self.waiting = len(data)
            self.listener.pause()

    def close(self) -> None:
        self.open = False
        self.listener.close()

    def buffered_bytes(self) -> int:
        return self.waiting

    def limit_messages(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes

    def abort(self) -> None:
        self.aborted = True

    def read(self, room: int = 1_000_000) -> None:
        self.waiting, self.room = 0, room
        self.listener.resume()


class Ready:
    """A connection to a server that accepts ready frames."""

    def __init__(
        self,
        room: int = 1_000_000,
        *,
        limit: int | None = None,
        policy: SlowConsumer = "close",
        codec: Codec = JSON,
        counters: Counters | None = None,
    ) -> None:
        self.sink = Sink(room)
        self.counters = counters or Counters()
        self.overruns = Overruns()
        self.overflows = 0
        self.overflowed = asyncio.Event()
        settings = OutboxSettings(
            codec=codec,
            limit_bytes=limit,
            policy=policy,
            counters=self.counters,
            overruns=self.overruns,
            on_overflow=self._on_overflow,
        )
        self._outbox = ReadyOutbox(self.sink, settings)

    def _on_overflow(self) -> None:
        self.overflows += 1
        self.overflowed.set()

    @property
    def written(self) -> bytes:
        return b"".join(self.sink.writes)


class Asgi:
    """A connection to a server without ready frames: one frame is written for each permit."""

    def __init__(self, limit: int | None = None, *, policy: SlowConsumer = "close", permits: int = 0) -> None:
        self.written: list[bytes] = []
        self.permits = asyncio.Semaphore(permits)
        self.writing = asyncio.Event()
        self.overflows = 0
        self.counters = Counters()
        self.overruns = Overruns()
        self.tasks: list[asyncio.Task[Any]] = []
        settings = OutboxSettings(
            codec=JSON,
            limit_bytes=limit,
            policy=policy,
            counters=self.counters,
            overruns=self.overruns,
            on_overflow=self._on_overflow,
        )
        self._outbox = TaskOutbox(self._send, self._start_writer, settings)

    def _start_writer(self, outbox: TaskOutbox, context: Context) -> asyncio.Task[None]:
        self.tasks.append(asyncio.get_running_loop().create_task(outbox.run(), context=context))
        return self.tasks[-1]

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self.writing.set()
        await self.permits.acquire()
        if message["text"] == "break":
            raise OSError("gone")
        self.written.append(message["text"].encode())

    def _on_overflow(self) -> None:
        self.overflows += 1


def frames(*payloads: bytes, topic: str | None = "t") -> list[Frame]:
    return [Frame(payload, binary=False, topic=topic) for payload in payloads]


def ready(*payloads: bytes) -> bytes:
    return b"".join(frame.ready for frame in frames(*payloads))
