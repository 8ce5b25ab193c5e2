"""The outboxes of one connection."""

from __future__ import annotations

import asyncio

import pytest
from support.timeouts import HANG_S
from unit._node.sockets import Asgi, Ready, frames, ready

# -- servers that accept ready frames


def test_ready_frames_are_written_at_once_if_there_is_room() -> None:
    socket = Ready()
    socket._outbox.write(ready(b"a", b"b"))
    socket._outbox.put(frames(b"c"))
    assert socket.sink.writes == [ready(b"a", b"b"), ready(b"c")]
    assert socket._outbox.size_bytes == 0


async def test_full_server_queues_frames_and_joins_them() -> None:
    """The queued frames are written in order as soon as the server has room."""
    socket = Ready(room=1)
    socket._outbox.put(frames(b"a", b"b", b"c"))
    assert socket.sink.writes == [ready(b"a")]
    assert not socket._outbox.direct
    assert socket._outbox.size_bytes == len(ready(b"a")) + 2
    socket.sink.read()
    assert socket.sink.writes == [ready(b"a"), ready(b"b", b"c")]
    assert socket._outbox.direct


async def test_server_that_fills_again_pauses_writing() -> None:
    socket = Ready(room=1)
    big = [bytes([n]) * 50_000 for n in range(5)]
    socket._outbox.put(frames(b"first", *big))
    socket.sink.read(room=1)
    assert len(socket.sink.writes) == 2
    assert not socket._outbox.direct
    socket._outbox.put(frames(b"last"))
    socket.sink.read()
    assert socket.written == ready(b"first", *big, b"last")


async def test_flushed_waits_until_server_has_everything() -> None:
    socket = Ready(room=1)
    await socket._outbox.flushed()
    socket._outbox.put(frames(b"a", b"b"))
    waiting = asyncio.get_running_loop().create_task(socket._outbox.flushed())
    await asyncio.wait({waiting}, timeout=0)
    assert not waiting.done()
    socket.sink.read()
    await waiting


async def test_overflow_closes_once_and_drops_the_rest() -> None:
    socket = Ready(room=1, limit=10)
    socket._outbox.put(frames(b"a", b"x" * 81, b"more", b"more"))
    assert (socket.overflows, socket.counters.overflows) == (1, 1)
    assert socket._outbox.closed
    socket.sink.read()
    assert socket.written == ready(b"a")
    socket._outbox.abort()
    assert socket.sink.aborted


async def test_burst_over_limit_is_written_if_client_reads() -> None:
    socket = Ready(room=1, limit=10)
    socket._outbox.put(frames(b"a", b"12345678", b"12345678"))
    assert socket._outbox in socket.overruns
    socket.sink.read()
    assert not socket.overruns
    assert socket.written == ready(b"a", b"12345678", b"12345678")
    assert socket.overflows == 0


async def test_client_over_limit_that_reads_little_is_closed() -> None:
    """It must read half of the limit within a second."""
    socket = Ready(room=1, limit=100_000)
    socket._outbox.put(frames(b"a", *[b"x" * 60_000] * 3))
    socket.sink.read(room=1)
    assert socket._outbox in socket.overruns
    async with asyncio.timeout(HANG_S):
        await socket.overflowed.wait()
    assert socket._outbox.closed
    assert not socket.overruns


async def test_publisher_waits_for_client_only_while_it_reads() -> None:
    socket = Ready(room=1, limit=10)
    socket._outbox.put(frames(b"a", b"12345678", b"12345678"))
    async with asyncio.timeout(HANG_S):
        await socket._outbox.read()
        assert not socket._outbox.closed, "it stops to wait before the client is closed"
        reading = asyncio.get_running_loop().create_task(socket._outbox.read())
        socket.sink.read()
        await reading


async def test_publisher_does_not_wait_for_closed_client() -> None:
    socket = Asgi(limit=1)
    socket._outbox.put(frames(b"a", b"b"))
    socket._outbox.close()
    async with asyncio.timeout(HANG_S):
        await socket._outbox.read()
    socket.permits.release()
    await asyncio.gather(*socket.tasks)


async def test_dropped_messages_are_counted() -> None:
    socket = Ready(room=1, limit=12, policy="drop-oldest")
    socket._outbox.put(frames(b"first", b"1234", b"5678"))
    assert socket.counters.dropped == 1
    socket.sink.read()
    assert socket.written == ready(b"first", b"5678")


async def test_closed_socket_closes_outbox() -> None:
    socket = Ready()
    socket.sink.close()
    assert socket._outbox.closed
    await socket._outbox.flushed()
    socket._outbox.put(frames(b"b"))
    socket._outbox.resume()
    assert not socket._outbox.direct


# -- ASGI messages


async def test_server_that_accepts_at_once_needs_no_turn_of_the_loop() -> None:
    socket = Asgi(permits=5)
    written: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

    def put() -> None:
        socket._outbox.put(frames(b"0", b"1"))
        socket._outbox.put(frames(b"2"))
        written.set_result([*socket.written])

    asyncio.get_running_loop().call_soon(put)
    assert await written == [b"0", b"1", b"2"]
    assert socket._outbox.size_bytes == 0
    await socket._outbox.flushed()
    socket._outbox.close()
    await asyncio.gather(*socket.tasks)


async def test_writer_finishes_writes_that_wait_in_order() -> None:
    socket = Asgi()
    socket._outbox.put(frames(b"0", b"1", b"2"))
    socket._outbox.put(frames(b"3"))
    assert socket._outbox.size_bytes == 4
    for _ in range(4):
        socket.permits.release()
    await socket._outbox.flushed()
    assert socket.written == [b"0", b"1", b"2", b"3"]
    assert socket._outbox.size_bytes == 0
    socket._outbox.put(frames(b"4"))
    socket.permits.release()
    await socket._outbox.flushed()
    assert socket.written[4:] == [b"4"]
    (writer,) = socket.tasks
    assert not writer.done()
    socket._outbox.close()
    await writer


async def test_frame_is_written_in_order_from_inside_a_task() -> None:
    """A task cannot run a part of another one, so the writer begins the write."""
    socket = Asgi(permits=5)

    async def put() -> None:
        socket._outbox.put(frames(b"0", b"1"))

    await asyncio.get_running_loop().create_task(put())
    await socket._outbox.flushed()
    assert socket.written == [b"0", b"1"]
    socket._outbox.close()
    await asyncio.gather(*socket.tasks)


async def test_stalled_write_counts_against_limit() -> None:
    socket = Asgi(limit=10)
    socket._outbox.put(frames(b"x" * 50))  # one frame may be larger than the limit: nothing else waits
    await socket.writing.wait()
    assert socket._outbox.size_bytes == 50
    socket._outbox.put(frames(b"y" * 30))
    assert socket.overflows == 0
    socket._outbox.put(frames(b"z"))
    assert socket.overflows == 1
    socket.permits.release()
    await asyncio.gather(*socket.tasks)
    assert socket.written == [b"x" * 50]
    socket._outbox.abort()


async def test_failed_write_closes_outbox_and_raises_in_writer() -> None:
    socket = Asgi()
    socket._outbox.put(frames(b"break", b"never"))
    socket.permits.release()
    await socket._outbox.flushed()
    with pytest.raises(OSError, match="gone"):
        await socket.tasks[0]
    assert socket._outbox.closed
    assert socket.written == []
    assert not socket._outbox.direct
