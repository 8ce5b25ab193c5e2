"""A node's tail of one partition: whatever the broker's connection does, the node hears everything once, in order.

The plugin tells a `TailState` what came; it answers with what to tell the node: `Advance`s, whose ranges tile, and
`Lost`s, behind which a new baseline begins. There is no I/O in here.

Two ways lead in. What the broker *pushes* may have holes (a message was lost, the connection was away). What the
plugin *reads* after it asked `start_catch_up` fills them. While a hole is open, pushed ranges wait in a buffer.
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
    """Everything in `(lo, hi]`, in order, each once; records without offset in between."""

    partition: int
    epoch: str
    lo: Offset
    hi: Offset
    records: Sequence[Record]

    def tell(self, sink: TailSink) -> None:
        """Hand it to a node."""
        sink.on_records(self.partition, self.epoch, self.lo, self.hi, self.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What lies before `head` is not known; what follows continues from it."""

    reason: GapReason
    head: Head

    def tell(self, sink: TailSink) -> None:
        """Hand it to a node."""
        sink.on_discontinuity(self.head.partition, self.reason, self.head)


TailEvent: TypeAlias = Advance | Lost


@dataclass(frozen=True, slots=True)
class _Range:
    epoch: str
    lo: Offset
    hi: Offset
    records: Sequence[Record]


class TailState:
    """The tail of one partition, from a baseline on.

    Args:
        head: The baseline: the broker's answer to a node that begins to tail.
        dedupe: Drops repeats of publishers, where the broker does not. It sees what is handed out, not what comes: a
            record that was dropped with the buffer must pass when it is read again.
        max_buffered: Ranges and records to hold back while a hole is open. Above it they are dropped and read again.
    """

    def __init__(self, head: Head, *, dedupe: SeqFilter | None = None, max_buffered: int = 10_000) -> None:
        self.partition: int = head.partition
        self.epoch: str = head.epoch
        self.watermark: Offset = head.offset
        self._dedupe = dedupe
        self._max_buffered = max_buffered
        self._buffer: list[_Range] = []
        self._buffered = 0
        self._behind = False  # a hole is open
        self._reading: int | None = None  # catching up: how many ranges were buffered when the read began

    @property
    def needs_catch_up(self) -> bool:
        """A hole is open, and nobody reads to fill it: call `start_catch_up`."""
        return self._behind and self._reading is None

    def push(self, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> list[TailEvent]:
        """Take what the broker pushed: everything in `(lo, hi]`, or, with `lo == hi`, that its log has come to there.

        The second is a probe's answer: it opens a hole if the last records did not arrive.
        """
        pushed = _Range(epoch, lo, hi, records)
        if not self._behind and epoch == self.epoch and lo <= self.watermark:
            return self._advance(pushed)
        self._behind = True
        self._hold(pushed)
        return []

    def interrupted(self) -> None:
        """Note that the connection was away, or that a read failed: something may be missing."""
        self._behind = True
        self._reading = None

    def start_catch_up(self) -> tuple[str, Offset]:
        """Begin to fill the hole.

        Returns:
            Epoch and watermark: read everything behind them, then call `caught_up` or `give_up`. What the broker
            pushes meanwhile goes to `push` as ever.
        """
        self._reading = len(self._buffer)
        return self.epoch, self.watermark

    def caught_up(self, head: Head, records: Sequence[Record]) -> list[TailEvent]:
        """Take the read's answer: all records behind the watermark, up to `head`.

        A head of another epoch, or one behind the watermark, says that the log lost data; the records do not count.
        """
        if head.epoch != self.epoch:
            return self.give_up(GapReason.EPOCH, head)
        if head.offset < self.watermark:
            return self.give_up(GapReason.AHEAD, head)
        return self._advance(_Range(head.epoch, self.watermark, head.offset, records)) + self._replay()

    def give_up(self, reason: GapReason, head: Head) -> list[TailEvent]:
        """Take a new baseline: the hole cannot be filled."""
        self.epoch = head.epoch
        self.watermark = head.offset
        return [Lost(reason=reason, head=head), *self._replay()]

    def _hold(self, pushed: _Range) -> None:
        self._buffer.append(pushed)
        self._buffered += 1 + len(pushed.records)
        if self._buffered > self._max_buffered:
            # Only what is stored can be read again: the last range stays as the proof that something is missing.
            self._buffer = [_Range(pushed.epoch, pushed.hi, pushed.hi, ())]
            self._buffered = 0
            self._reading = None if self._reading is None else 0

    def _replay(self) -> list[TailEvent]:
        """Hand out what waited, up to the next hole."""
        waiting, known = self._buffer, self._reading or 0
        self._buffer, self._buffered, self._behind, self._reading = [], 0, False, None
        events: list[TailEvent] = []
        for index, pushed in enumerate(waiting):
            # The read began after these came and does not know their epoch: they are leftovers of an older one.
            if index < known and pushed.epoch != self.epoch:
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
