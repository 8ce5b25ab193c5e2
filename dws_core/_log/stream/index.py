"""The recent past of a partition by topic, without payloads: which records a read needs, and which are too old."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from operator import attrgetter

import msgspec

from dws_core._log.records import GapReason, Offset, ReadResult, ReadSpan

_OFFSET = attrgetter("offset")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A stored record without its content.

    Attributes:
        topic: Its topic.
        offset: Its place.
        expires_ms: When its TTL ends, in milliseconds since the Unix epoch.
        size: How many records of its topic are kept.
        payload_bytes: Size of its payload, in bytes.
    """

    topic: str
    offset: Offset
    expires_ms: int
    size: int
    payload_bytes: int = 0


class TopicIndex:
    """The records that the tail of a partition saw, and those that reads of the past have added.

    Args:
        lo: Place after which everything is known.
        max_entries: Maximum number of records. The oldest are dropped first.
        floor: Place before which nothing can be added, -1 if that is not known.

    Attributes:
        lo: Place after which everything is known.
        floor: Place before which nothing can be added, -1 if that is not known.
        floor_reason: The gap of reads that begin before `floor`.
    """

    def __init__(self, lo: Offset, *, max_entries: int = 100_000, floor: Offset = -1) -> None:
        self.lo = lo
        self.floor = floor
        self.floor_reason = GapReason.TRIMMED
        self._max_entries = max_entries
        self._topics: dict[str, deque[Entry]] = {}
        self._order: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, entries: Iterable[Entry]) -> None:
        """Note records that are newer than all others, oldest first."""
        for entry in entries:
            if (found := self._topics.get(entry.topic)) is not None:
                found.append(entry)
            else:
                self._topics[entry.topic] = deque((entry,))
            self._order.append(entry)
        while len(self._order) > self._max_entries:
            self._drop_oldest()

    def extend(self, older: TopicIndex, since: Offset) -> None:
        """Add the records between a place and `lo`, as many of the newest as there is room for.

        Args:
            older: An index that contains them. What it does not know cannot be added later either.
            since: The place.
        """
        room = self._max_entries - len(self._order)
        added = [entry for entry in older._order if max(since, older.lo) < entry.offset <= self.lo]
        self.lo = min(self.lo, max(since, older.lo))
        for entry in reversed(added):
            if not room:
                self.lo = entry.offset
                break
            room -= 1
            self._topics.setdefault(entry.topic, deque()).appendleft(entry)
            self._order.appendleft(entry)
        if self.lo > since:
            self.raise_floor(self.lo, GapReason.TOO_MANY if older.lo <= since else GapReason.TRIMMED)

    def raise_floor(self, place: Offset, reason: GapReason) -> None:
        """Note that nothing before a place can be added."""
        if place > self.floor:
            self.floor, self.floor_reason = place, reason

    def newer(self, topic: str, since: Offset) -> list[Entry]:
        """Return the records of a topic after a place, newest first."""
        return list(takewhile(lambda entry: entry.offset > since, reversed(self._topics.get(topic, ()))))

    def topics(self, since: Offset) -> set[str]:
        """Return the topics with a record after a place."""
        return {entry.topic for entry in takewhile(lambda entry: entry.offset > since, reversed(self._order))}

    def _drop_oldest(self) -> None:
        entry = self._order.popleft()
        self.lo = entry.offset
        self.raise_floor(self.lo, GapReason.TOO_MANY)
        entries = self._topics[entry.topic]
        entries.popleft()
        if not entries:
            del self._topics[entry.topic]


class Selection:
    """The records that one read needs, found in steps. `TopicIndex.lo` must cover the read, also at the end.

    Args:
        index: The index.
        span: The read.
        now_ms: The time.
    """

    def __init__(self, index: TopicIndex, span: ReadSpan, now_ms: int) -> None:
        self._index = index
        self._span = span
        self._now_ms = now_ms
        topics = span.topics
        self._match = topics if callable(topics) else None
        self._left: Iterator[str] = iter(index.topics(span.since) if callable(topics) else topics)
        self._lost: Offset = span.since
        self._wanted: list[Entry] = []

    def steps(self, topics: int) -> Iterator[None]:
        """Look for the records. Yield after each number of topics, so that the caller may do something else."""
        for number, topic in enumerate(self._left, 1):
            if self._match is None or self._match(topic):
                newer = self._index.newer(topic, self._span.since)
                self._lost = max(self._lost, last_lost(newer, self._span.until, self._now_ms))
                self._wanted += (entry for entry in newer if entry.offset <= self._span.until)
            if number % topics == 0:
                yield

    def result(self) -> list[Offset] | ReadResult:
        """Return the places of all records, ascending, or the gap."""
        if self._lost > self._span.since:
            return ReadResult(gap=GapReason.TRIMMED, next_since=self._lost)
        self._wanted.sort(key=_OFFSET)
        room, records = self._span.max_bytes, self._span.limit
        for entry in reversed(self._wanted):
            records -= 1
            room -= entry.payload_bytes
            if records < 0 or room < 0:
                return ReadResult(gap=GapReason.TOO_MANY, next_since=entry.offset)
        return [entry.offset for entry in self._wanted]


def last_lost(newest_first: Sequence[Entry], until: Offset, now_ms: int) -> Offset:
    """Return the place of one topic's newest record up to `until` that is not kept any more, or 0.

    Args:
        newest_first: All records of the topic that are newer than the reader's position.
        until: The last wanted place.
        now_ms: The time.
    """
    for number, entry in enumerate(newest_first):
        if entry.offset <= until and (number >= newest_first[0].size or entry.expires_ms <= now_ms):
            return entry.offset
    return 0
