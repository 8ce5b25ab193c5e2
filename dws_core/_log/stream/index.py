"""The recent past of a partition by topic, without payloads: which records a read needs, and which are too old."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from dws_core._log.records import GapReason, Offset, ReadSpan, TopicMatch


class Entry(NamedTuple):
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
    """What the tail of a partition saw.

    Args:
        lo: Place after which everything is known.
        max_entries: Maximum number of records. The oldest are dropped first.

    Attributes:
        lo: Place after which everything is known.
    """

    def __init__(self, lo: Offset, *, max_entries: int = 100_000) -> None:
        self.lo = lo
        self._max_entries = max_entries
        self._topics: OrderedDict[str, deque[Entry]] = OrderedDict()  # least recently published first
        self._order: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, topic: str, entry: Entry) -> None:
        """Note a record that is newer than all others."""
        if (found := self._topics.get(topic)) is not None:
            found.append(entry)
            self._topics.move_to_end(topic)
        else:
            self._topics[topic] = deque((entry,))
        self._order.append(topic)
        if len(self._order) > self._max_entries:
            self._drop_oldest()

    def select(self, span: ReadSpan, now_ms: int) -> list[Offset] | GapReason:
        """Return the places of all records that a read needs, ascending, or why it is a gap. `lo` must cover it."""
        found: list[Offset] = []
        for entries in self._newer(span):
            places = kept(entries, span.until, now_ms)
            if places is None:
                return GapReason.TRIMMED
            found += places
        return GapReason.TOO_MANY if len(found) > span.limit else sorted(found)

    def _newer(self, span: ReadSpan) -> Iterator[list[Entry]]:
        topics = self._matching(span.since, span.topics) if callable(span.topics) else self._named(span.topics)
        for entries in topics:
            yield list(takewhile(lambda entry: entry.offset > span.since, reversed(entries)))

    def _named(self, topics: Iterable[str]) -> Iterator[deque[Entry]]:
        return (found for topic in topics if (found := self._topics.get(topic)) is not None)

    def _matching(self, since: Offset, match: TopicMatch) -> Iterator[deque[Entry]]:
        for topic, entries in reversed(self._topics.items()):
            if entries[-1].offset <= since:
                return  # the topics before it were published to earlier
            if match(topic):
                yield entries

    def _drop_oldest(self) -> None:
        topic = self._order.popleft()
        entries = self._topics[topic]
        self.lo = entries.popleft().offset
        if not entries:
            del self._topics[topic]
