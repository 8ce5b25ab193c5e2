"""How a node hears of what is stored: its tails, flushed to its sink once for each tick of its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from dws_core.plugin import GapReason, Head, Record, TailSink
from dws_memory._log import Log, Partition

_MAX_BEHIND: Final = 262_144
"""Records that may wait for a node whose event loop does not run. Then it is told a gap: memory stays bounded."""


class _Tail:
    """What a node has not heard yet of one partition."""

    __slots__ = ("lost", "node", "partition", "pending", "seen")

    def __init__(self, node: Node, partition: Partition) -> None:
        self.node = node
        self.partition = partition
        self.pending: list[Record] = []
        self.seen = partition.end  # the sink's watermark
        self.lost = False

    def add(self, record: Record) -> None:
        if len(self.pending) >= _MAX_BEHIND:
            self.pending, self.lost = [], True
        if not self.lost:
            self.pending.append(record)
        if not self.node.woken:
            self.node.wake()

    def take(self) -> Callable[[TailSink], None]:
        """Return what to tell the sink, and start anew."""
        head, lo = self.partition.head, self.seen
        self.seen = head.offset
        records, self.pending = self.pending, []
        if self.lost:
            self.lost = False
            return lambda sink: sink.on_discontinuity(head.partition, GapReason.TRIMMED, head)
        return lambda sink: sink.on_records(head.partition, head.epoch, lo, head.offset, records)


def _control(sender: bytes, payload: bytes) -> Callable[[TailSink], None]:
    return lambda sink: sink.on_control(sender, payload)


class Node:
    """A started broker. Its public methods are called on its event loop; the log calls `hear` and the tails.

    Args:
        id_: The node's id.
        log: Where it belongs; it joins at once.
        sink: Who is told.
        loop: Where the sink is called.
    """

    def __init__(self, id_: bytes, log: Log, sink: TailSink, loop: asyncio.AbstractEventLoop) -> None:
        self.id = id_
        self.log = log
        self.woken = False
        self._sink = sink
        self._loop = loop
        self._seqs = [0] * len(log.partitions)
        self._tails: dict[int, _Tail] = {}
        self._controls: list[tuple[bytes, bytes]] = []
        with log.lock:
            log.nodes += (self,)

    def next_seq(self, partition: int) -> int:
        """Count a publish; called with the lock held."""
        self._seqs[partition] += 1
        return self._seqs[partition]

    def tail(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Tail exactly these; a partition that is tailed already goes on where it is."""
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
                node.hear(self.id, payload)

    def hear(self, sender: bytes, payload: bytes) -> None:
        """Take a control message; called with the lock held, from any thread."""
        self._controls.append((sender, payload))
        if not self.woken:
            self.wake()

    def wake(self) -> None:
        """Have `_flush` run in the next tick; called with the lock held, from any thread."""
        self.woken = True
        if asyncio.get_running_loop() is self._loop:
            self._loop.call_soon(self._flush)
            return
        try:
            self._loop.call_soon_threadsafe(self._flush)
        except RuntimeError:  # that loop is closed, and nobody stopped the broker: nobody listens any more
            self._leave()

    def close(self) -> None:
        """Hand over what waits, and leave the log."""
        self._flush()
        with self.log.lock:
            self._leave()
        self._tell(lambda sink: sink.on_state("closed", "stopped"))

    def _flush(self) -> None:
        with self.log.lock:
            self.woken = False
            news = [tail.take() for tail in self._tails.values() if tail.pending or tail.lost]
            news += [_control(*control) for control in self._controls]
            self._controls.clear()
        for tell in news:
            self._tell(tell)

    def _tell(self, tell: Callable[[TailSink], None]) -> None:
        try:
            tell(self._sink)
        except Exception as error:  # noqa: BLE001 -- foreign code; the other calls and the other nodes must go on
            self._loop.call_exception_handler({"message": "a tail sink of dws failed", "exception": error})

    def _drop(self, number: int) -> None:
        tail = self._tails.pop(number)
        tail.partition.readers = tuple(r for r in tail.partition.readers if r is not tail)

    def _leave(self) -> None:
        for number in tuple(self._tails):
            self._drop(number)
        self._controls.clear()
        self.log.nodes = tuple(n for n in self.log.nodes if n is not self)
