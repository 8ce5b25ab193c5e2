"""The outbox of one connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dws_core._node.outbox import Outbox
from dws_core._wire.frames import Frame


class _Socket:
    """Writes into a list, one frame for each permit."""

    def __init__(self, limit: int | None = None) -> None:
        self.written: list[bytes] = []
        self.permits = asyncio.Semaphore(0)
        self.writing = asyncio.Event()
        self.overflows = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self.outbox = Outbox(
            self._write,
            start_writer=lambda box: self.tasks.append(asyncio.get_running_loop().create_task(box.drain())),
            on_overflow=self._on_overflow,
            limit_bytes=limit,
        )

    async def _write(self, frame: Frame) -> None:
        self.writing.set()
        await self.permits.acquire()
        if frame.payload == b"break":
            raise OSError("gone")
        self.written.append(frame.payload)

    def _on_overflow(self) -> None:
        self.overflows += 1

    def push(self, payload: bytes) -> bool:
        return self.outbox.push(Frame(payload, binary=True))


async def test_frames_are_written_in_order_by_one_writer_that_ends_when_done() -> None:
    socket = _Socket()
    assert all(socket.push(str(n).encode()) for n in range(5))
    for _ in range(5):
        socket.permits.release()
    await socket.outbox.flushed()
    assert socket.written == [b"0", b"1", b"2", b"3", b"4"]
    assert len(socket.tasks) == 1
    assert socket.outbox.size_bytes == 0
    socket.push(b"5")
    socket.permits.release()
    await socket.outbox.flushed()
    assert len(socket.tasks) == 2


async def test_over_the_limit_it_closes_once_and_takes_nothing_more() -> None:
    socket = _Socket(limit=10)
    assert socket.push(b"x" * 50)  # one frame may be larger than the limit: nothing else waits
    await socket.writing.wait()
    assert not socket.push(b"y")
    assert not socket.push(b"z")
    assert socket.overflows == 1
    assert socket.outbox.size_bytes == 0
    socket.permits.release()
    await asyncio.gather(*socket.tasks)
    assert socket.written == [b"x" * 50]


async def test_bytes_on_their_way_count_until_they_are_written() -> None:
    socket = _Socket(limit=10)
    socket.push(b"12345")
    await socket.writing.wait()
    assert socket.push(b"12345")
    assert not socket.push(b"1")


async def test_a_failed_write_closes_it_and_reaches_the_writers_owner() -> None:
    socket = _Socket()
    socket.push(b"break")
    socket.push(b"never")
    socket.permits.release()
    await socket.outbox.flushed()
    with pytest.raises(OSError, match="gone"):
        await socket.tasks[0]
    assert not socket.push(b"later")
    assert socket.written == []
