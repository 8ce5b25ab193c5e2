"""Delivers new rows of the file to a node's sink, whenever another node sends a nudge or a timer fires."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVarTuple

from dws_core.plugin import BrokerState, GapReason, Head, Offset, Record, TailSink
from dws_sqlite._store import CONTROL, GRACE_S, Store
from dws_sqlite._worker import Worker

Ts = TypeVarTuple("Ts")

_MAX_ROWS: Final = 1000
_LOOPBACK: Final = "127.0.0.1"


class Tail(asyncio.DatagramProtocol):
    """Passes all rows after `seen` to a sink.

    A datagram on the node's port, a nudge, makes the node read the file. The content of the datagram is ignored, so a
    stranger can cause no more than a read. A timer also reads the file, because a nudge may be lost.

    Args:
        node: Id of the node.
        store: The open file.
        worker: Thread that uses the file.
        sink: Receives the records, gaps, control messages and states.
        poll_s: Time between two reads without a nudge, in seconds.
    """

    def __init__(self, node: bytes, store: Store, worker: Worker, sink: TailSink, poll_s: float) -> None:
        self.seen: Offset = 0
        self.partitions: frozenset[int] = frozenset()
        self._node, self._store, self._worker, self._sink, self._poll_s = node, store, worker, sink, poll_s
        self._loop = asyncio.get_running_loop()
        self._socket: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reading = self._read_again = self._degraded = self._closed = False

    async def open(self) -> None:
        """Start at the end of the file, and receive nudges from now on."""
        self.seen, self._read_started_at = await self._worker.run(self._store.end), time.monotonic()
        self._socket, _ = await self._loop.create_datagram_endpoint(lambda: self, local_addr=(_LOOPBACK, 0))
        self._port: int = self._socket.get_extra_info("sockname")[1]
        await self._worker.run(self._store.join, self._node, self._port)
        self._join_at = time.monotonic() + GRACE_S / 4
        self._timer = self._loop.call_later(self._poll_s, self._tick)

    def close(self) -> None:
        """Stop calling the sink."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.close()

    def nudge(self, ports: Iterable[int]) -> None:
        """Send a nudge to these ports, so that their nodes read the file."""
        if self._socket is not None and not self._closed:
            for port in ports:
                self._socket.sendto(b"\0", (_LOOPBACK, port))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Read the new rows."""
        self._read_new()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._poll_s, self._tick)
        if time.monotonic() >= self._join_at:
            self._join_at += GRACE_S / 4
            self._worker.submit(self._store.join, self._node, self._port).add_done_callback(self._check_outcome)
        self._read_new()

    def _read_new(self) -> None:
        if self._reading:
            self._read_again = True
        elif not self._closed:
            self._reading, self._read_again = True, False
            started_at = time.monotonic()
            job = self._worker.submit(self._store.after, self.seen, _MAX_ROWS)
            job.add_done_callback(lambda job: self._on_rows(job, started_at))

    def _on_rows(self, job: asyncio.Future[tuple[Offset, list[tuple[int, Record]]]], started_at: float) -> None:
        self._reading = False
        if not self._check_outcome(job):
            return  # the next tick reads again
        late = time.monotonic() - self._read_started_at > GRACE_S
        end, rows = job.result()
        lo, self.seen, self._read_started_at = self.seen, end, started_at
        if self._read_again or len(rows) == _MAX_ROWS:
            self._read_new()
        if end > lo:
            for partition in self.partitions:
                if late:  # rows may have been deleted before this node has read them
                    head = Head(partition=partition, epoch=self._store.epoch, offset=end)
                    self._call_sink(self._sink.on_discontinuity, partition, GapReason.TRIMMED, head)
                else:
                    records = [record for p, record in rows if p == partition]
                    self._call_sink(self._sink.on_records, partition, self._store.epoch, lo, end, records)
        for partition, record in rows:
            if partition == CONTROL:
                self._call_sink(self._sink.on_control, record.publisher, record.payload)

    def _check_outcome(self, job: asyncio.Future[Any]) -> bool:
        """Return whether a job succeeded. Report to the sink when the file becomes unusable or usable again."""
        error = job.exception()
        if self._closed:
            return False
        if (error is not None) is not self._degraded:
            self._degraded = error is not None
            state: BrokerState = "degraded" if error else "live"
            self._call_sink(
                self._sink.on_state, state, str(self._worker.wrap(error)) if error else "the file is usable again"
            )
        return error is None

    def _call_sink(self, call: Callable[[*Ts], None], *args: *Ts) -> None:
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001 -- a failing sink must not stop the other calls
            self._loop.call_exception_handler({"message": "a tail sink of dws failed", "exception": error})
