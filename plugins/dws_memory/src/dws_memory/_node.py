"""The delivery to one node: its tails, flushed to its sink once per tick of its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from dws_core.plugin import GapReason, Head, Record, TailSink
from dws_memory._log import Log, Partition

_MAX_PENDING: Final = 262_144
"""Maximum number of records that wait for a node whose event loop does not run. Beyond that, they are dropped and the
node receives a gap, so that memory stays bounded."""


class _Tail:
    """The records of one partition that the node's sink has not received yet."""

    __slots__ = ("lost", "node", "partition", "pending", "seen")

    def __init__(self, node: Node, partition: Partition) -> None:
        self.node = node
        self.partition = partition
        self.pending: list[Record] = []
        self.seen = partition.end  # the sink's watermark
        self.lost = False

    def add(self, record: Record) -> None:
        if len(self.pending) >= _MAX_PENDING:
            self.pending, self.lost = [], True
        if not self.lost:
            self.pending.append(record)
        if not self.node.flush_scheduled:
            self.node.schedule_flush()

    def take_pending(self) -> Callable[[TailSink], None]:
        """Return the call that passes the pending records or the gap to a sink, and forget them."""
        head, lo = self.partition.head, self.seen
        self.seen = head.offset
        records, self.pending = self.pending, []
        if self.lost:
            self.lost = False
            return lambda sink: sink.on_discontinuity(head.partition, GapReason.TRIMMED, head)
        return lambda sink: sink.on_records(head.partition, head.epoch, lo, head.offset, records)


def _control_call(sender: bytes, payload: bytes) -> Callable[[TailSink], None]:
    return lambda sink: sink.on_control(sender, payload)


class Node:
    """The node of a started broker.

    The methods are called on the node's event loop, except `receive_control` and `schedule_flush`, which run in the
    thread of the publisher.

    Args:
        id_: Id of the node.
        log: Log of the node, which it joins immediately.
        sink: Receives the records, gaps, control messages and states.
        loop: Event loop on which the sink is called.
    """

    def __init__(self, id_: bytes, log: Log, sink: TailSink, loop: asyncio.AbstractEventLoop) -> None:
        self.id = id_
        self.log = log
        self.flush_scheduled = False
        self._sink = sink
        self._loop = loop
        self._seqs = [0] * len(log.partitions)
        self._tails: dict[int, _Tail] = {}
        self._controls: list[tuple[bytes, bytes]] = []
        with log.lock:
            log.nodes += (self,)

    def next_seq(self, partition: int) -> int:
        """Return the sequence number of the next publish. Called with the lock held."""
        self._seqs[partition] += 1
        return self._seqs[partition]

    def tail(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Tail exactly these partitions. A partition that is already tailed continues at its position."""
        with self.log.lock:
            for number in self._tails.keys() - partitions:
                self._drop(number)
            for number in partitions - self._tails.keys():
                partition = self.log.partitions[number]
                tail = self._tails[number] = _Tail(self, partition)
                partition.readers += (tail,)
            return {n: replace(tail.partition.head, offset=tail.seen) for n, tail in self._tails.items()}

    def send_control(self, payload: bytes) -> None:
        """Send to every node of the log."""
        with self.log.lock:
            for node in self.log.nodes:
                node.receive_control(self.id, payload)

    def receive_control(self, sender: bytes, payload: bytes) -> None:
        """Queue a control message. Called with the lock held, from any thread."""
        self._controls.append((sender, payload))
        if not self.flush_scheduled:
            self.schedule_flush()

    def schedule_flush(self) -> None:
        """Schedule `_flush` for the next tick. Called with the lock held, from any thread."""
        self.flush_scheduled = True
        if asyncio.get_running_loop() is self._loop:
            self._loop.call_soon(self._flush)
            return
        try:
            self._loop.call_soon_threadsafe(self._flush)
        except RuntimeError:  # the loop of this node was closed before the broker was stopped
            self._leave()

    def close(self) -> None:
        """Pass all pending records to the sink, and leave the log."""
        self._flush()
        with self.log.lock:
            self._leave()
        self._call_sink(lambda sink: sink.on_state("closed", "stopped"))

    def _flush(self) -> None:
        with self.log.lock:
            self.flush_scheduled = False
            calls = [tail.take_pending() for tail in self._tails.values() if tail.pending or tail.lost]
            calls += [_control_call(*control) for control in self._controls]
            self._controls.clear()
        for call in calls:
            self._call_sink(call)

    def _call_sink(self, call: Callable[[TailSink], None]) -> None:
        try:
            call(self._sink)
        except Exception as error:  # noqa: BLE001 -- a failing sink must not stop the other calls and the other nodes
            self._loop.call_exception_handler({"message": "a tail sink of dws failed", "exception": error})

    def _drop(self, number: int) -> None:
        tail = self._tails.pop(number)
        tail.partition.readers = tuple(r for r in tail.partition.readers if r is not tail)

    def _leave(self) -> None:
        for number in tuple(self._tails):
            self._drop(number)
        self._controls.clear()
        self.log.nodes = tuple(n for n in self.log.nodes if n is not self)
