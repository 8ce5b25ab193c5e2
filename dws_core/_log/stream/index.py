"""The recent past of a partition by topic, without payloads: which records a read needs, and which are too old."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import takewhile

import msgspec

from dws_core._log.records import GapReason, Offset, ReadSpan, TopicMatch


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A stored record without its content.

    Attributes:
        offset: Its place.
        expires_ms: When its TTL ends, in milliseconds since the Unix epoch.
        size: How many records of its topic are kept.
    """

    offset: Offset
    expires_ms: int
    size: int


def kept(newest_first: Sequence[Entry], until: Offset, now_ms: int) -> list[Offset] | None:
    """Return the places of one topic's records up to `until`, or None if one of them is not kept any more.

    Args:
        newest_first: All records of the topic that are newer than the reader's position.
        until: The last wanted place.
        now_ms: The time.
    """
    wanted = [entry for entry in newest_first if entry.offset <= until]
    too_many = bool(wanted) and len(newest_first) > newest_first[0].size
    if too_many or any(entry.expires_ms <= now_ms for entry in wanted):
        return None
    return [entry.offset for entry in wanted]


class TopicIndex:
    """The records that the tail of a partition saw.

    Args:
        lo: Place after which everything is known.
        max_entries: Maximum number of records. The oldest are dropped first.

    Attributes:
        lo: Place after which everything is known.
    """

    def __init__(self, lo: Offset, *, max_entries: int = 100_000) -> None:
        self.lo = lo
        self._max_entries = max_entries
        self._topics: dict[str, deque[Entry]] = {}
        self._order: deque[tuple[str, Entry]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, topic: str, entry: Entry) -> None:
        """Note a record that is newer than all others."""
        if (found := self._topics.get(topic)) is not None:
            found.append(entry)
        else:
            self._topics[topic] = deque((entry,))
        self._order.append((topic, entry))
        if len(self._order) > self._max_entries:
            self._drop_oldest()

    def select(self, span: ReadSpan, now_ms: int) -> list[Offset] | GapReason:
        """Return the places of all records that a read needs, ascending, or why it is a gap. `lo` must cover it."""
        found: list[Offset] = []
        for topic in self._matching(span.since, span.topics) if callable(span.topics) else span.topics:
            newer = takewhile(lambda entry: entry.offset > span.since, reversed(self._topics.get(topic, ())))
            places = kept(list(newer), span.until, now_ms)
            if places is None:
                return GapReason.TRIMMED
            found += places
        return GapReason.TOO_MANY if len(found) > span.limit else sorted(found)

    def _matching(self, since: Offset, match: TopicMatch) -> Iterator[str]:
        """Yield the matching topics with a record after a place."""
        newer = takewhile(lambda item: item[1].offset > since, reversed(self._order))
        return filter(match, {topic for topic, _ in newer})

    def _drop_oldest(self) -> None:
        topic, entry = self._order.popleft()
        self.lo = entry.offset
        entries = self._topics[topic]
        entries.popleft()
        if not entries:
            del self._topics[topic]
