"""Recovery of a reconnecting client: every missed message once and in order, then live messages, or else a gap.

The rule, for each partition that the client's filters need: let `S` be the client's position, and `w` the node's
watermark when the client joins. Then *history delivers the records in `(S, w]`, and the live stream delivers the
records above both*. The rule is simple because the node's tail has no holes. Either all partitions are recovered or
none, because there is one answer for the whole cursor.

While history is read and sent, live records are held back, up to a limit. Above the limit no further records are held
back. They are read from the log in another round of the same rule, so the client may read as slowly as it likes.

No I/O, no clock: the caller reads the logs, queries their heads, sends the messages, and passes in all events.
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
"""Memory of a record that is held back, in addition to its payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayLimits:
    """Limits of one replay. Above `messages` or `bytes`, the answer is the gap `too-many`.

    Attributes:
        messages: Maximum number of replayed messages.
        bytes: Maximum size of their payloads, in bytes.
        held_bytes: Maximum memory of live messages that are held back during the recovery, in bytes. Above it, further
            messages are read from the log later.
    """

    messages: int = 10_000
    bytes: int = 16_777_216
    held_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to the client, sent before any message.

    Attributes:
        cursor: For each partition that its filters need, the position before the first message that follows.
        gap: Why the client could not be recovered. None if it was: then every message after the cursor follows.
    """

    cursor: Mapping[int, Position]
    gap: GapReason | None = None


class Due(NamedTuple):
    """A record to send to the client now."""

    partition: int
    epoch: str
    record: Record


def wanted_topics(exact: Collection[str], match: TopicMatch | None, layout: Layout) -> dict[int, WantedTopics]:
    """Return the wanted topics of a connection, for each partition that it needs.

    Args:
        exact: The exact topics that it wants.
        match: Returns whether it wants a topic, in any partition. If None, it wants only the exact topics.
        layout: The layout of the channel.
    """
    names = frozenset(exact)
    if match is not None:
        return dict.fromkeys(range(layout.partitions), match)
    found: dict[int, set[str]] = {}
    for topic in names:
        found.setdefault(partition_of(topic, layout), set()).add(topic)
    return {partition: frozenset(topics) for partition, topics in found.items()}


def watermarks(logs: Mapping[int, LogCache], partitions: Iterable[int]) -> dict[int, Position]:
    """Return the cursor of a connection that has received everything. Replies and `pos` frames contain it."""
    return {partition: Position(partition, logs[partition].epoch, logs[partition].hi) for partition in partitions}


def obstacle(cursor: Mapping[int, Position], needed: Collection[int], logs: Mapping[int, LogCache]) -> GapReason | None:
    """Return why a recovery is impossible, as far as the cursor and the node show it, or None.

    Entries for partitions that are not needed are ignored, with two exceptions. Both show that the layout has changed:

    - The partition does not exist.
    - The epoch has changed, and the cursor has no entry for a needed partition, to which the topics may have moved.
    """
    if any(partition not in logs for partition in cursor):
        return GapReason.LAYOUT
    outdated = {partition for partition, position in cursor.items() if position.epoch != logs[partition].epoch}
    if not outdated.isdisjoint(needed):
        return GapReason.EPOCH
    if outdated and any(partition not in cursor for partition in needed):
        return GapReason.LAYOUT
    return None


class Recovery:
    """The recovery of one connection, from its cursor to live delivery.

    The caller must:

    1. Create the object in the same step of the event loop in which it routes the connection's live records to
       `on_record`.
    2. Do the reads of `to_read` and the queries of `to_confirm` until `answer` is set, then send the answer.
    3. Send the items of `take`, as fast as the client reads.
    4. When `settled` is True, deliver records directly and drop the object.

    Args:
        cursor: The cursor that the client sent.
        wanted: The wanted topics, for each partition that the client's filters need.
        logs: The caches of *all* partitions. A cache must be advanced or reset *before* `on_record` or
            `on_discontinuity` is called for the same event.
        recovers: Whether the broker has a log to recover from. If False, the answer is the gap `unsupported`, without a
            cursor.
        limits: Limits of the replay.

    Attributes:
        answer: The answer to send, or None while reads or queries are pending.
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
        self._recovers = recovers
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
        self._overflowed = False  # records were not held back and must be read from the log
        reason = obstacle(cursor, wanted.keys(), logs) if recovers else GapReason.UNSUPPORTED
        if reason is not None:
            self.refuse(reason)
        else:
            self._plan()

    # -- work for the caller

    def to_read(self) -> list[ReadSpan]:
        """Return the reads to do now, each once. Pass their results to `found`."""
        spans, self._unasked = self._unasked, []
        return spans

    @property
    def to_confirm(self) -> frozenset[int]:
        """Partitions in which the client is ahead of this node. Pass the broker's heads of them to `confirmed`."""
        return frozenset(self._unconfirmed)

    @property
    def partitions(self) -> Collection[int]:
        """The partitions to recover."""
        return self._wanted.keys()

    @property
    def is_waiting(self) -> bool:
        """Whether the answer or the result of a read is still missing."""
        return self.answer is None or bool(self._unread)

    @property
    def settled(self) -> bool:
        """Whether everything was taken, so that the next live record is the client's next message."""
        done = not (self.is_waiting or self._overflowed or self._replay or self._held)
        return done and all(floor <= self._logs[partition].hi for partition, floor in self._floor.items())

    def position(self) -> dict[int, Position]:
        """Return the client's cursor after it has received everything. The `pos` frame after a replay contains it."""
        return {
            partition: Position(partition, self._logs[partition].epoch, max(floor, self._logs[partition].hi))
            for partition, floor in self._floor.items()
        }

    def take(self, *, max_messages: int, max_bytes: int) -> list[Due | Lost]:
        """Return the next items to send, oldest first. A `Lost` is a gap of its partition on the open connection.

        Args:
            max_messages: Maximum number of items.
            max_bytes: Approximate maximum size, in bytes, including overhead. The item that reaches it is the last one.

        Returns:
            The items. Empty while `is_waiting` is True, or when everything was taken.
        """
        taken: list[Due | Lost] = []
        while len(taken) < max_messages and max_bytes > 0 and (item := self._next()) is not None:
            taken.append(item)
            max_bytes -= _size(item)
        return taken

    # -- events from the caller

    def found(self, span: ReadSpan, result: ReadResult) -> None:
        """Process the result of a read. A result that is no longer needed is ignored."""
        if self._unread.get(span.partition) is not span:
            return
        del self._unread[span.partition]
        if result.gap is None:
            self._keep(span, result.records)
        else:
            self._lose(span, result.gap)
        self._go_on()

    def confirmed(self, head: Head) -> None:
        """Process the broker's head of a partition, which shows whether the client is ahead or the node lags."""
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
        """Answer with a gap, which only new records follow. Do nothing if there is an answer already."""
        if self.answer is not None:
            return
        for unneeded in (self._unconfirmed, self._unread, self._unasked, self._found, self._held):
            unneeded.clear()
        self._found_messages = self._found_bytes = self._held_bytes = 0
        self._overflowed = False
        start = watermarks(self._logs, self._start)
        self._floor = {partition: position.offset for partition, position in start.items()}
        self.answer = Answer(cursor=start if self._recovers else {}, gap=reason)

    def abandon(self) -> list[Due | Lost]:
        """End without an answer. Return the live records that were held back, and a gap for those that were not."""
        items, self._held = [*self._held], deque()
        if self._overflowed:
            heads = [Head(partition=n, epoch=self._logs[n].epoch, offset=self._logs[n].hi) for n in self._wanted]
            items += [Lost(reason=GapReason.TOO_MANY, head=head) for head in heads]
        return items

    def on_record(self, partition: int, epoch: str, record: Record) -> None:
        """Hold back a live record that matches a filter. Drop it if the client has it or a read will return it."""
        if record.offset is not None and record.offset <= self._floor[partition]:
            return
        if self._overflowed:
            return  # a later read returns it, unless it has no offset: then it is lost, as for any slow client
        if record.offset is not None:
            self._floor[partition] = record.offset
        self._hold(Due(partition, epoch, record))

    def on_discontinuity(self, reason: GapReason, head: Head) -> None:
        """Process the loss of the node's place in a partition."""
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
                return  # there are too many messages
        self._go_on()

    def _next(self) -> Due | Lost | None:
        if self._overflowed and not (self._replay or self._held):
            self._catch_up()
        if self.is_waiting:
            return None
        if self._replay:
            return self._replay.popleft()
        if not self._held:
            return None
        item = self._held.popleft()
        self._held_bytes -= _size(item)
        return item

    def _catch_up(self) -> None:
        """Begin another round: read the records that were not held back."""
        self._overflowed = False
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
        """Set the answer and release the found records, once all reads and queries are complete."""
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
        if self._held_bytes > self._limits.held_bytes:
            self._overflowed = True

    def _watermark(self, partition: int) -> Position:
        return Position(partition, self._logs[partition].epoch, self._logs[partition].hi)


def _size(item: Due | Lost) -> int:
    return len(item.record.payload) + _HELD_BYTES if isinstance(item, Due) else _HELD_BYTES
