"""A node's tail of one partition. The node receives each record once and in order, even if the connection breaks.

The plugin passes received ranges to a `TailState`. It returns the events for the node: `Advance`s, whose ranges adjoin
each other, and `Lost`s, after which a new baseline begins. There is no I/O in this module.

Ranges come from two sources. Those that the broker *pushes* may have holes, because a message was lost or the
connection was interrupted. Those that the plugin *reads* after `start_catch_up` fill the holes. While a hole is open,
pushed ranges are buffered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from dws_core._log.records import GapReason, Head, Offset, Record

if TYPE_CHECKING:
    from dws_core._log.contract import TailSink
    from dws_core._log.seqfilter import SeqFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """All records in `(lo, hi]`, in order, each once. Records without an offset may be between them."""

    partition: int
    epoch: str
    lo: Offset
    hi: Offset
    records: Sequence[Record]

    def tell(self, sink: TailSink) -> None:
        """Pass the event to a node."""
        sink.on_records(self.partition, self.epoch, self.lo, self.hi, self.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Records before `head` are lost to this node. The following records continue from it."""

    reason: GapReason
    head: Head

    def tell(self, sink: TailSink) -> None:
        """Pass the event to a node."""
        sink.on_discontinuity(self.head.partition, self.reason, self.head)


TailEvent: TypeAlias = Advance | Lost
"""An event for the node. `tell` passes it on."""


@dataclass(frozen=True, slots=True)
class _Range:
    epoch: str
    lo: Offset
    hi: Offset
    records: Sequence[Record]


class TailState:
    """The tail of one partition, which begins at a baseline.

    Args:
        head: The baseline: the head of the log when the node begins to tail.
        dedupe: Drops repeated records, if the broker does not. It is applied to records on their way to the node, not
            on arrival, because a record that was dropped from the buffer must not count as seen.
        max_buffered: Maximum number of ranges and records in the buffer while a hole is open. Above it, the buffer is
            dropped and its records are read again.

    Attributes:
        partition: Number of the partition.
        epoch: Epoch of the partition.
        watermark: Offset up to which the node has received everything.
    """

    def __init__(self, head: Head, *, dedupe: SeqFilter | None = None, max_buffered: int = 10_000) -> None:
        self.partition: int = head.partition
        self.epoch: str = head.epoch
        self.watermark: Offset = head.offset
        self._dedupe = dedupe
        self._max_buffered = max_buffered
        self._buffer: list[_Range] = []
        self._buffered = 0
        self._has_hole = False
        self._reading: int | None = None  # during a catch-up: number of buffered ranges when the read began

    @property
    def needs_catch_up(self) -> bool:
        """Whether a hole is open and no read is in progress to fill it. Call `start_catch_up` then."""
        return self._has_hole and self._reading is None

    def push(self, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> list[TailEvent]:
        """Process a pushed range: all records in `(lo, hi]`, or, if `lo == hi`, the current end of the log.

        The end of the log is the answer to a probe. It opens a hole if the last records did not arrive.
        """
        pushed = _Range(epoch, lo, hi, records)
        if not self._has_hole and epoch == self.epoch and lo <= self.watermark:
            return self._advance(pushed)
        self._has_hole = True
        self._hold(pushed)
        return []

    def interrupted(self) -> None:
        """Report that the connection was interrupted or a read has failed, so that records may be missing."""
        self._has_hole = True
        self._reading = None

    def start_catch_up(self) -> tuple[str, Offset]:
        """Begin to fill the hole.

        Returns:
            Epoch and watermark. Read all records after them, then call `caught_up` or `give_up`. Continue to pass
            pushed ranges to `push` in the meantime.
        """
        self._reading = len(self._buffer)
        return self.epoch, self.watermark

    def caught_up(self, head: Head, records: Sequence[Record]) -> list[TailEvent]:
        """Process the result of the read: all records after the watermark, up to `head`.

        A head with another epoch, or below the watermark, shows that the log has lost data. Then the records are
        ignored.
        """
        if head.epoch != self.epoch:
            return self.give_up(GapReason.EPOCH, head)
        if head.offset < self.watermark:
            return self.give_up(GapReason.AHEAD, head)
        return self._advance(_Range(head.epoch, self.watermark, head.offset, records)) + self._replay()

    def give_up(self, reason: GapReason, head: Head) -> list[TailEvent]:
        """Set a new baseline, because the hole cannot be filled."""
        self.epoch = head.epoch
        self.watermark = head.offset
        return [Lost(reason=reason, head=head), *self._replay()]

    def _hold(self, pushed: _Range) -> None:
        self._buffer.append(pushed)
        self._buffered += 1 + len(pushed.records)
        if self._buffered > self._max_buffered:
            # The end of the last range shows that records are missing. Those with an offset are read again.
            self._buffer = [_Range(pushed.epoch, pushed.hi, pushed.hi, ())]
            self._buffered = 0
            self._reading = None if self._reading is None else 0

    def _replay(self) -> list[TailEvent]:
        """Return the events of the buffered ranges, up to the next hole."""
        buffered, before_read = self._buffer, self._reading or 0
        self._buffer, self._buffered, self._has_hole, self._reading = [], 0, False, None
        events: list[TailEvent] = []
        for index, pushed in enumerate(buffered):
            # This range arrived before the read began, but the read has another epoch: so its epoch is an old one.
            if index < before_read and pushed.epoch != self.epoch:
                continue
            events += self.push(pushed.epoch, pushed.lo, pushed.hi, pushed.records)
        return events

    def _advance(self, pushed: _Range) -> list[TailEvent]:
        lo, hi = self.watermark, max(self.watermark, pushed.hi)
        records = [r for r in pushed.records if (r.offset is None or r.offset > lo) and self._is_new(r)]
        if hi == lo and not records:
            return []
        self.watermark = hi
        return [Advance(partition=self.partition, epoch=self.epoch, lo=lo, hi=hi, records=records)]

    def _is_new(self, record: Record) -> bool:
        return self._dedupe is None or self._dedupe.accept(record.publisher, record.seq)
