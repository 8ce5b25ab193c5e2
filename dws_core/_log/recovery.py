"""Joining a client that comes back to the live stream: nothing lost, nothing twice, or a gap that says so.

The rule, for each partition that its filters need: with `S` the client's position and `w` the node's watermark at the
moment of joining, *history serves `(S, w]` and live serves what is above both*. It is that simple because the node's
tail is contiguous. All partitions are recovered or none: the answer is for the whole cursor.

While history is read and sent, live records are held back, up to a bound. Beyond it nothing more is held back: what
follows is read from the log in a further round of the same rule, however slowly the client reads.

No I/O, no clock: the caller reads, asks for heads, sends, and tells what came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from dws_core._log.partition import partition_of
from dws_core._log.records import GapReason, Head, Offset, ReadResult, ReadSpan, Record, TopicMatch, WantedTopics
from dws_core._log.tail import Lost
from dws_core._wire.cursor import Position

if TYPE_CHECKING:
    from dws_core._log.cache import LogCache
    from dws_core._log.records import Layout

_HELD_BYTES: Final = 256
"""What a record that is held back takes beside its payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayLimits:
    """Bounds of what one connection is sent of the past; beyond them the answer is the gap `too-many`.

    Attributes:
        messages: Messages of one replay.
        bytes: Bytes of their payloads.
        held_bytes: Bytes of live messages that are held back meanwhile, with what is around them. Beyond that they are
            read from the log later.
    """

    messages: int = 10_000
    bytes: int = 16_777_216
    held_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the client is told before anything else.

    Attributes:
        cursor: The position before the first message that follows, for each partition that its filters need.
        gap: None: recovered, every message after the cursor follows; else why not.
    """

    cursor: Mapping[int, Position]
    gap: GapReason | None = None


class Due(NamedTuple):
    """A record that is to be sent to the client now."""

    partition: int
    epoch: str
    record: Record


def wanted_topics(exact: Collection[str], match: TopicMatch | None, layout: Layout) -> dict[int, WantedTopics]:
    """Return what a connection wants of each partition that it needs.

    Args:
        exact: Topics it wants by name.
        match: Says which others it wants, in any partition; None: none.
        layout: Of the channel.
    """
    names = frozenset(exact)
    if match is not None:
        wildcard = match

        def wanted(topic: str) -> bool:
            return topic in names or wildcard(topic)

        return dict.fromkeys(range(layout.partitions), wanted)
    found: dict[int, set[str]] = {}
    for topic in names:
        found.setdefault(partition_of(topic, layout), set()).add(topic)
    return {partition: frozenset(topics) for partition, topics in found.items()}


def watermarks(logs: Mapping[int, LogCache], partitions: Iterable[int]) -> dict[int, Position]:
    """Return where a connection that has been sent everything stands: the cursor of answers and of `pos` frames."""
    return {partition: Position(partition, logs[partition].epoch, logs[partition].hi) for partition in partitions}


def obstacle(cursor: Mapping[int, Position], needed: Collection[int], logs: Mapping[int, LogCache]) -> GapReason | None:
    """Say what makes a recovery impossible at first sight; None: nothing.

    An entry that is not needed does not count, with two exceptions, both signs of another layout: its partition does
    not exist; or its epoch is gone while a needed partition is not named, so that the topics may have moved there.
    """
    if any(partition not in logs for partition in cursor):
        return GapReason.LAYOUT
    gone = {partition for partition, position in cursor.items() if position.epoch != logs[partition].epoch}
    if not gone.isdisjoint(needed):
        return GapReason.EPOCH
    if gone and any(partition not in cursor for partition in needed):
        return GapReason.LAYOUT
    return None


class Recovery:
    """One connection's way from its cursor to live delivery.

    The caller makes it in the same step of the event loop in which it routes the connection's live records to
    `on_record`; until `answer` is there it does what `to_read` and `to_confirm` ask for, then sends the answer and, as
    fast as the client reads, what `take` returns; when `settled`, it delivers directly and forgets this.

    Args:
        cursor: What the client sent.
        wanted: Partitions that its filters need, and what it wants of each.
        logs: What the node knows of *all* partitions. A log is advanced or reset *before* `on_record` and
            `on_discontinuity` are told of the same event.
        recovers: Whether the broker keeps anything.
        limits: Bounds.

    Attributes:
        answer: None while the caller still has to read or confirm.
    """

    def __init__(
        self,
        cursor: Mapping[int, Position],
        wanted: Mapping[int, WantedTopics],
        logs: Mapping[int, LogCache],
        *,
        recovers: bool = True,
        limits: ReplayLimits | None = None,
    ) -> None:
        self.answer: Answer | None = None
        self._wanted = wanted
        self._logs = logs
        self._limits = limits or ReplayLimits()
        self._start = {partition: cursor.get(partition) or self._watermark(partition) for partition in sorted(wanted)}
        self._floor = {partition: max(start.offset, logs[partition].hi) for partition, start in self._start.items()}
        self._unconfirmed: dict[int, Offset] = {}
        self._unread: dict[int, ReadSpan] = {}
        self._unasked: list[ReadSpan] = []
        self._found: dict[int, list[Due | Lost]] = {}
        self._found_messages = 0
        self._found_bytes = 0
        self._replay: deque[Due | Lost] = deque()
        self._held: deque[Due | Lost] = deque()
        self._held_bytes = 0
        self._behind = False
        reason = obstacle(cursor, wanted.keys(), logs) if recovers else GapReason.UNAVAILABLE
        if reason is not None:
            self.refuse(reason)
        else:
            self._plan()

    # -- what the caller has to do

    def to_read(self) -> list[ReadSpan]:
        """Return the reads to do now, each once; tell their answers to `found`."""
        spans, self._unasked = self._unasked, []
        return spans

    @property
    def to_confirm(self) -> frozenset[int]:
        """Partitions whose head only the broker knows: the client is ahead of this node. Tell `confirmed`."""
        return frozenset(self._unconfirmed)

    @property
    def partitions(self) -> Collection[int]:
        """The partitions that it is about."""
        return self._wanted.keys()

    @property
    def waits(self) -> bool:
        """Whether an answer or a read is still to come."""
        return self.answer is None or bool(self._unread)

    @property
    def settled(self) -> bool:
        """Whether the client has taken all that this node has: from now on the next record is its next message."""
        done = not (self.waits or self._behind or self._replay or self._held)
        return done and all(floor <= self._logs[partition].hi for partition, floor in self._floor.items())

    def position(self) -> dict[int, Position]:
        """Return where the client stands when it has taken everything: the cursor of the `pos` that ends a replay."""
        return {
            partition: Position(partition, self._logs[partition].epoch, max(floor, self._logs[partition].hi))
            for partition, floor in self._floor.items()
        }

    def take(self, *, max_messages: int, max_bytes: int) -> list[Due | Lost]:
        """Return what to send next, oldest first; a `Lost` is a gap of that partition on the open connection.

        Args:
            max_messages: At most so many.
            max_bytes: About so many bytes, with what is around a message; the one that reaches it is the last.

        Returns:
            Nothing while it `waits`, or when all was taken.
        """
        taken: list[Due | Lost] = []
        while len(taken) < max_messages and max_bytes > 0 and (item := self._next()) is not None:
            taken.append(item)
            max_bytes -= _size(item)
        return taken

    # -- what the caller tells

    def found(self, span: ReadSpan, result: ReadResult) -> None:
        """Take the answer to a read. One that comes too late does no harm."""
        if self._unread.get(span.partition) is not span:
            return
        del self._unread[span.partition]
        if result.gap is None:
            self._keep(span, result.records)
        else:
            self._lose(span, result.gap)
        self._go_on()

    def confirmed(self, head: Head) -> None:
        """Take the broker's word on a partition's head: is the client really ahead of the log, or is the node slow?"""
        claimed = self._unconfirmed.pop(head.partition, None)
        if claimed is None:
            return
        if head.epoch != self._start[head.partition].epoch:
            self.refuse(GapReason.EPOCH)
        elif head.offset < claimed:
            self.refuse(GapReason.AHEAD)
        else:
            self._go_on()

    def refuse(self, reason: GapReason) -> None:
        """Answer by a gap: nothing of the past follows, only what is new. Too late where there is an answer."""
        if self.answer is not None:
            return
        for given_up in (self._unconfirmed, self._unread, self._unasked, self._found, self._held):
            given_up.clear()
        self._found_messages = self._found_bytes = self._held_bytes = 0
        start = watermarks(self._logs, self._start)
        self._floor = {partition: position.offset for partition, position in start.items()}
        self.answer = Answer(cursor=start, gap=reason)

    def on_record(self, partition: int, epoch: str, record: Record) -> None:
        """Hold back a live record that one of the filters matches; what the client has or will read is dropped."""
        if record.offset is not None and record.offset <= self._floor[partition]:
            return
        if self._behind:
            return  # it will be read; without an offset it is lost, as for any client that cannot keep up
        if record.offset is not None:
            self._floor[partition] = record.offset
        self._hold(Due(partition, epoch, record))

    def on_discontinuity(self, reason: GapReason, head: Head) -> None:
        """Take that the node lost its place in a partition."""
        if head.partition not in self._floor:
            return
        if self.answer is None:
            self.refuse(reason)
            return
        self._floor[head.partition] = head.offset
        self._hold(Lost(reason=reason, head=head))

    # -- inside

    def _plan(self) -> None:
        for partition, start in self._start.items():
            if start.offset > self._logs[partition].hi:
                self._unconfirmed[partition] = start.offset
            else:
                self._read(partition, start.offset)
            if self.answer is not None:
                return  # too many already
        self._go_on()

    def _next(self) -> Due | Lost | None:
        if self._behind and not (self._replay or self._held):
            self._catch_up()
        if self.waits:
            return None
        if self._replay:
            return self._replay.popleft()
        if not self._held:
            return None
        item = self._held.popleft()
        self._held_bytes -= _size(item)
        return item

    def _catch_up(self) -> None:
        """Begin a further round: read what was not held back."""
        self._behind = False
        for partition, floor in self._floor.items():
            self._read(partition, floor)
            self._floor[partition] = max(floor, self._logs[partition].hi)
        self._go_on()

    def _read(self, partition: int, since: Offset) -> None:
        log = self._logs[partition]
        if since >= log.hi:
            return
        span = ReadSpan(
            partition=partition,
            epoch=log.epoch,
            since=since,
            until=log.hi,
            topics=self._wanted[partition],
            limit=self._limits.messages,
            max_bytes=self._limits.bytes,
        )
        records = log.missed(since, span.topics)
        if records is None:
            self._unread[partition] = span
            self._unasked.append(span)
        else:
            self._keep(span, records)

    def _keep(self, span: ReadSpan, records: tuple[Record, ...]) -> None:
        messages = self._found_messages + len(records)
        size = self._found_bytes + sum(len(record.payload) for record in records)
        if messages > self._limits.messages or size > self._limits.bytes:
            self._lose(span, GapReason.TOO_MANY)
            return
        self._found_messages, self._found_bytes = messages, size
        self._found[span.partition] = [Due(span.partition, span.epoch, record) for record in records]

    def _lose(self, span: ReadSpan, reason: GapReason) -> None:
        if self.answer is None:
            self.refuse(reason)
            return
        head = Head(partition=span.partition, epoch=span.epoch, offset=span.until)
        self._found[span.partition] = [Lost(reason=reason, head=head)]

    def _go_on(self) -> None:
        """Answer, and let what was found be taken, as soon as nothing is missing."""
        if self._unread or self._unconfirmed:
            return
        if self.answer is None:
            self.answer = Answer(cursor=self._start)
        for partition in sorted(self._found):
            self._replay.extend(self._found[partition])
        self._found.clear()
        self._found_messages = self._found_bytes = 0

    def _hold(self, item: Due | Lost) -> None:
        self._held.append(item)
        self._held_bytes += _size(item)
        if self._held_bytes <= self._limits.held_bytes:
            return
        if self.answer is None:
            self.refuse(GapReason.TOO_MANY)
        else:
            self._behind = True

    def _watermark(self, partition: int) -> Position:
        return Position(partition, self._logs[partition].epoch, self._logs[partition].hi)


def _size(item: Due | Lost) -> int:
    return len(item.record.payload) + _HELD_BYTES if isinstance(item, Due) else _HELD_BYTES
