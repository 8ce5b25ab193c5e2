"""How a node learns what is new in the file: it is nudged, it looks, it tells its sink."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVarTuple

from dws_core.plugin import BrokerState, GapReason, Head, Offset, Record, TailSink
from dws_sqlite._store import CONTROL, GRACE_S, Store
from dws_sqlite._worker import Worker

Ts = TypeVarTuple("Ts")

_PAGE: Final = 1000
_LOOPBACK: Final = "127.0.0.1"


class Tail(asyncio.DatagramProtocol):
    """Everything behind `seen`, handed to a sink.

    A datagram on the node's port says "look". What is in it is not read, so nobody can say more than that. A timer looks
    too: a nudge may be lost.

    Args:
        node: The node's id.
        store: The file.
        worker: Where the file is used.
        sink: Who is told.
        poll_s: Seconds between two looks, where nobody nudges.
    """

    def __init__(self, node: bytes, store: Store, worker: Worker, sink: TailSink, poll_s: float) -> None:
        self.seen: Offset = 0
        self.partitions: frozenset[int] = frozenset()
        self._node, self._store, self._worker, self._sink, self._poll_s = node, store, worker, sink, poll_s
        self._loop = asyncio.get_running_loop()
        self._nudges: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looking = self._look_again = self._degraded = self._closed = False

    async def open(self) -> None:
        """Begin at the end of the file; be nudged from now on."""
        self.seen, self._looked_at = await self._worker.run(self._store.end), time.monotonic()
        self._nudges, _ = await self._loop.create_datagram_endpoint(lambda: self, local_addr=(_LOOPBACK, 0))
        self._port: int = self._nudges.get_extra_info("sockname")[1]
        await self._worker.run(self._store.join, self._node, self._port)
        self._join_at = time.monotonic() + GRACE_S / 4
        self._timer = self._loop.call_later(self._poll_s, self._tick)

    def close(self) -> None:
        """Tell the sink nothing more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._nudges is not None:
            self._nudges.close()

    def nudge(self, ports: Iterable[int]) -> None:
        """Make the nodes behind these ports look."""
        if self._nudges is not None and not self._closed:
            for port in ports:
                self._nudges.sendto(b"\0", (_LOOPBACK, port))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Look."""
        self._look()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._poll_s, self._tick)
        if time.monotonic() >= self._join_at:
            self._join_at += GRACE_S / 4
            self._worker.submit(self._store.join, self._node, self._port).add_done_callback(self._note)
        self._look()

    def _look(self) -> None:
        if self._looking:
            self._look_again = True
        elif not self._closed:
            self._looking, self._look_again = True, False
            asked_at = time.monotonic()
            job = self._worker.submit(self._store.after, self.seen, _PAGE)
            job.add_done_callback(lambda job: self._looked(job, asked_at))

    def _looked(self, job: asyncio.Future[tuple[Offset, list[tuple[int, Record]]]], asked_at: float) -> None:
        self._looking = False
        if not self._note(job):
            return  # the next tick looks again
        late = time.monotonic() - self._looked_at > GRACE_S
        end, found = job.result()
        lo, self.seen, self._looked_at = self.seen, end, asked_at
        if self._look_again or len(found) == _PAGE:
            self._look()
        if end > lo:
            for partition in self.partitions:
                if late:  # something may have been deleted before this node saw it
                    head = Head(partition=partition, epoch=self._store.epoch, offset=end)
                    self._tell(self._sink.on_discontinuity, partition, GapReason.TRIMMED, head)
                else:
                    records = [record for p, record in found if p == partition]
                    self._tell(self._sink.on_records, partition, self._store.epoch, lo, end, records)
        for partition, record in found:
            if partition == CONTROL:
                self._tell(self._sink.on_control, record.publisher, record.payload)

    def _note(self, job: asyncio.Future[Any]) -> bool:
        """Take a background job's outcome; tell the sink when the file becomes unusable, and usable again."""
        error = job.exception()
        if self._closed:
            return False
        if (error is not None) is not self._degraded:
            self._degraded = error is not None
            state: BrokerState = "degraded" if error else "live"
            self._tell(self._sink.on_state, state, str(self._worker.wrap(error)) if error else "the file is back")
        return error is None

    def _tell(self, call: Callable[[*Ts], None], *args: *Ts) -> None:
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001 -- foreign code; what else there is to tell must go on
            self._loop.call_exception_handler({"message": "a tail sink of dws failed", "exception": error})
