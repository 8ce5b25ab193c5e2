"""The node's cache of the recent records of one partition. Most reconnecting clients are served from it.

The tail adds every record that it receives, so the cache is complete in its range `(lo, hi]`. `hi` is the node's
watermark. All connections of the node share the cache.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from dws_core._log.records import Head, History, Offset, Record, TopicMatch, WantedTopics
from dws_core._topics.cached_topics import CachedTopics
from dws_core._topics.trie import TrieIndex
from dws_core._topics.wanted import WantedMatch

if TYPE_CHECKING:
    from collections.abc import Iterator

_RECORD_BYTES: Final = 256
"""Memory of a record in addition to its payload: the Python objects around it."""

_FEW_TOPICS: Final = 512
"""Number of changed topics that are compared with filters one by one. Above it, an index of all topics is used."""

_INDEX_STEP: Final = 1_000
"""Number of topics that are added to the index in one step, in about 2 ms."""

_OFFSET = attrgetter("offset")


class LogCache:
    """A node's view of one partition: epoch, watermark, and the newest records by topic.

    Args:
        head: The baseline at which the tail begins.
        max_records: Maximum number of records. The oldest are evicted first. If 0, only epoch and watermark are stored.
        max_bytes: Maximum memory of all records, in bytes. An estimate that includes the Python objects.
        max_age_s: Maximum age of a record, in seconds, measured by the `now` of the calls.
        history: Returns the `History` of a topic, which limits `missed`. If None, `missed` returns every cached record.

    Attributes:
        partition: Number of the partition.
        epoch: Epoch of the partition.
        lo: Exclusive lower bound of the range in which the cache has every record.
        hi: Inclusive upper bound of that range: the node's watermark, up to which the tail has received everything.
        size_bytes: Memory of all cached records, in bytes. An estimate.
        max_age_s: Maximum age of a record, in seconds.
    """

    __slots__ = (
        "_arrivals", "_by_level", "_history", "_max_bytes", "_max_records", "_now", "_records", "_topics", "epoch", "hi",
        "lo", "max_age_s", "partition", "size_bytes",
    )  # fmt: skip

    def __init__(
        self,
        head: Head,
        *,
        max_records: int = 50_000,
        max_bytes: int = 33_554_432,
        max_age_s: float = 60.0,
        history: Callable[[str], History] | None = None,
    ) -> None:
        self.partition: int = head.partition
        self.epoch: str = head.epoch
        self.lo: Offset = head.offset
        self.hi: Offset = head.offset
        self.size_bytes: int = 0
        self._max_records = max_records
        self._max_bytes = max_bytes
        self.max_age_s: float = max_age_s
        self._history = history
        self._now = 0.0
        self._records: deque[Record] = deque()
        self._arrivals: deque[tuple[float, Offset]] = deque()  # when the records up to an offset arrived
        self._topics: OrderedDict[str, deque[Record]] = OrderedDict()  # least recently published first
        self._by_level: CachedTopics | None = None

    def __len__(self) -> int:
        return len(self._records)

    @property
    def head(self) -> Head:
        """Epoch and watermark, up to which the tail has received everything."""
        return Head(partition=self.partition, epoch=self.epoch, offset=self.hi)

    def advance(self, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record], *, now: float) -> None:
        """Add all records in `(lo, hi]`, as in `TailSink.on_records`. Records without an offset are not cached.

        If the range does not continue the cached range, the cache is cleared first.
        """
        if epoch != self.epoch or lo != self.hi:
            self._begin(epoch, lo)
        for record in records:
            if record.offset is not None:
                self._add(record)
        if self._records and (self._records[-1].offset or 0) > lo:
            self._arrivals.append((now, hi))
        self.hi = hi
        self.expire(now)

    def reset(self, head: Head) -> None:
        """Clear the cache and set a new baseline, as in `TailSink.on_discontinuity`."""
        self._begin(head.epoch, head.offset)

    def expire(self, now: float) -> None:
        """Set the time, and evict records that are too old or too many."""
        self._now = now
        while self._arrivals and self._arrivals[0][0] <= now - self.max_age_s:
            self._evict_to(self._arrivals[0][1])
        while len(self._records) > self._max_records or self.size_bytes > self._max_bytes:
            self._evict()
        if self._by_level is not None and self._by_level.used <= now - self.max_age_s:
            self._by_level = None

    def read(self, since: Offset, until: Offset, topics: WantedTopics) -> tuple[Record, ...] | None:
        """Return the records in `(since, until]` that have a wanted topic. The caller must check the epoch.

        Returns:
            The records in ascending order, or None if the cache does not cover the range.
        """
        if since < self.lo or until > self.hi:
            return None
        found = [record for queue in self._wanted(since, topics) for record in _between(queue, since, until)]
        found.sort(key=_OFFSET)
        return tuple(found)

    def prepare(self, since: Offset, topics: WantedTopics) -> bool:
        """Do a part of the work of a later `read` or `missed`. Return whether some is left.

        A read of filters needs an index if many topics have changed. Building it takes too long for one step.
        """
        if not _filters_of(topics) or not self._many_changed(since):
            return False
        return self._index().build(_INDEX_STEP)

    def last(self, topic: str, until: Offset, *, limit: int, max_bytes: int) -> tuple[Record, ...] | None:
        """Return the newest records of a topic up to an offset, as many as fit into both limits.

        Args:
            topic: The topic.
            until: Inclusive upper offset.
            limit: Maximum number of records.
            max_bytes: Maximum size of their payloads, in bytes.

        Returns:
            The records in ascending order. None if the cache does not have them all. Read from the broker then.
        """
        if until > self.hi:
            return None
        found: deque[Record] = deque()
        for record in reversed(self._topics.get(topic, ())):
            if (record.offset or 0) > until:
                continue
            if len(found) == limit or (max_bytes := max_bytes - len(record.payload)) < 0:
                return tuple(found)
            found.appendleft(record)
        return tuple(found) if len(found) == limit else None

    def missed(self, since: Offset, topics: WantedTopics) -> tuple[Record, ...] | None:
        """Return the records in `(since, hi]` for a reconnecting client. The result equals a read from the broker.

        Returns:
            The records in ascending order. None if the cache does not cover the range, or if more records match than
            the topics' histories keep (by size, or by TTL at the time of the last call with a `now`). Read from the
            broker then.
        """
        found = self.read(since, self.hi, topics)
        return found if found is None or self._history is None or self._all_kept(found, self._history) else None

    def _all_kept(self, found: tuple[Record, ...], history: Callable[[str], History]) -> bool:
        first = {record.topic: record.offset or 0 for record in reversed(found)}
        for topic, count in Counter(record.topic for record in found).items():
            kept = history(topic)
            if count > kept.size or first[topic] <= self._arrived_by(self._now - kept.ttl_s):
                return False
        return True

    def _arrived_by(self, time: float) -> Offset:
        """Return the offset up to which records had arrived at a time, or 0 if none of them is cached."""
        arrived = 0
        for at, offset in self._arrivals:
            if at > time:
                break
            arrived = offset
        return arrived

    def _wanted(self, since: Offset, topics: WantedTopics) -> Iterator[deque[Record]]:
        if not callable(topics):
            return self._named(topics)
        filters = _filters_of(topics)
        if filters is None or not self._many_changed(since):
            return self._changed_since(since, topics)
        names: frozenset[str] = topics.names if isinstance(topics, WantedMatch) else frozenset()
        found = self._index().matching(filters, now=self._now)
        return self._named(chain(names, (name for name in found if name not in names)))

    def _many_changed(self, since: Offset) -> bool:
        queue = next(islice(reversed(self._topics.values()), _FEW_TOPICS, None), None)
        return queue is not None and (queue[-1].offset or 0) > since

    def _index(self) -> CachedTopics:
        if self._by_level is None:
            self._by_level = CachedTopics(self._topics.keys(), now=self._now)
        return self._by_level

    def _named(self, topics: Iterable[str]) -> Iterator[deque[Record]]:
        return (queue for name in topics if (queue := self._topics.get(name)) is not None)

    def _changed_since(self, since: Offset, match: TopicMatch) -> Iterator[deque[Record]]:
        for name, queue in reversed(self._topics.items()):
            if (queue[-1].offset or 0) <= since:
                return  # all remaining topics were published to even earlier
            if match(name):
                yield queue

    def _begin(self, epoch: str, offset: Offset) -> None:
        self._records.clear()
        self._arrivals.clear()
        self._topics.clear()
        self._by_level = None
        self.size_bytes = 0
        self.epoch, self.lo, self.hi = epoch, offset, offset

    def _add(self, record: Record) -> None:
        self._records.append(record)
        self.size_bytes += len(record.payload) + _RECORD_BYTES
        if (queue := self._topics.get(record.topic)) is not None:
            queue.append(record)
            self._topics.move_to_end(record.topic)
        else:
            self._topics[record.topic] = deque((record,))
            if self._by_level is not None:
                self._by_level.add(record.topic)

    def _evict(self) -> None:
        record = self._records.popleft()
        self.size_bytes -= len(record.payload) + _RECORD_BYTES
        queue = self._topics[record.topic]
        queue.popleft()  # it is also the oldest record of its topic
        if not queue:
            del self._topics[record.topic]
            if self._by_level is not None:
                self._by_level.discard(record.topic)
        self.lo = record.offset or 0
        while self._arrivals and self._arrivals[0][1] <= self.lo:
            self._arrivals.popleft()

    def _evict_to(self, offset: Offset) -> None:
        while self._records and (self._records[0].offset or 0) <= offset:
            self._evict()
        self.lo = max(self.lo, offset)
        while self._arrivals and self._arrivals[0][1] <= self.lo:
            self._arrivals.popleft()


def _filters_of(topics: WantedTopics) -> TrieIndex[object] | None:
    """Return the index of the filters among wanted topics, if it is one that `CachedTopics` can use."""
    if isinstance(topics, WantedMatch) and isinstance(topics.index, TrieIndex):
        return topics.index
    return None


def _between(queue: deque[Record], since: Offset, until: Offset) -> Iterator[Record]:
    """Yield the records of one topic in `(since, until]`, newest first, because missed records are at the end."""
    for record in reversed(queue):
        offset = record.offset or 0
        if offset <= since:
            return
        if offset <= until:
            yield record
