"""The storage: the partition logs of one channel. Uses no event loop. The caller holds the lock.

Memory is proportional to the number of kept records, not to the number of records ever published:

- A topic's records are dropped by the size and the TTL of its history.
- Of a topic without records, only the last offset is kept, so that a read can return "nothing was missed" exactly. At
  most `_MAX_EMPTY_TOPICS` such topics are kept. The *floor* is the highest offset among those that were forgotten. A
  read of an unknown topic from below the floor returns a gap.
- A key is forgotten after its window.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from heapq import heappop, heappush
from typing import Protocol

from dws_core.plugin import GapReason, Head, History, Layout, Offset, ReadResult, ReadSpan, Receipt, Record, TopicMatch

_MAX_EMPTY_TOPICS = 10_000


class Reader(Protocol):
    """Receives every new record of a partition."""

    def add(self, record: Record) -> None:
        """Receive a record. Called with the lock held, from any thread."""
        ...


class ControlReceiver(Protocol):
    """A node of the channel, as the other nodes see it."""

    def receive_control(self, sender: bytes, payload: bytes) -> None:
        """Receive a control message. Called with the lock held, from any thread."""
        ...


class _Topic:
    """The records of one topic, oldest first, each with the time at which it expires."""

    __slots__ = ("last", "records")

    def __init__(self, last: Offset) -> None:
        self.last = last
        self.records: deque[tuple[float, Record]] = deque()

    def add(self, record: Record, offset: Offset, history: History, now: float) -> None:
        self.last = offset
        self.records.append((now + history.ttl_s, record))
        while len(self.records) > history.size:
            self.records.popleft()
        self.drop_expired(now)

    def drop_expired(self, now: float) -> None:
        records = self.records
        while records and records[0][0] <= now:
            records.popleft()

    @property
    def last_dropped(self) -> Offset:
        """Offset of the newest record that was dropped, 0 if none was."""
        return (self.records[0][1].prev or 0) if self.records else self.last


class Partition:
    """One log. All times are seconds of the caller's clock."""

    def __init__(self, number: int, epoch: str) -> None:
        self.number = number
        self.epoch = epoch
        self.end: Offset = 0
        self.readers: tuple[Reader, ...] = ()  # replaced, never changed, because publish() iterates over it
        self._floor: Offset = 0
        self._topics: OrderedDict[str, _Topic] = OrderedDict()  # least recently published first
        self._empty_topics: OrderedDict[str, Offset] = OrderedDict()  # the last offset of each topic without records
        self._due: list[tuple[float, str]] = []  # heap of the times to check a topic, one entry for each of `_topics`
        self._receipts: OrderedDict[tuple[str, str], tuple[float, Receipt]] = OrderedDict()

    @property
    def head(self) -> Head:
        """The end of the log. `first` stays 0, because each topic has its own beginning."""
        return Head(partition=self.number, epoch=self.epoch, offset=self.end)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        history: History,
        key: str | None,
        key_ttl_s: float,
        publisher: bytes,
        seq: int,
        ts_ms: int,
        now: float,
    ) -> Receipt:
        """Store a message and pass it to the readers. See `LogBroker.publish`."""
        if key is not None and (first := self._first_receipt(topic, key, now)) is not None:
            return first
        stored = self._topic(topic, history, now) if history.size else None
        record = Record(
            offset=self.end if stored else None,
            topic=topic,
            payload=payload,
            ts_ms=ts_ms,
            publisher=publisher,
            seq=seq,
            key=key,
            prev=stored.last if stored else None,
        )
        if stored is not None:
            stored.add(record, self.end, history, now)
        receipt = Receipt(epoch=self.epoch, offset=record.offset)
        if key is not None:
            self._receipts[topic, key] = (now + key_ttl_s, receipt)
        for reader in self.readers:
            reader.add(record)
        return receipt

    def _topic(self, name: str, history: History, now: float) -> _Topic:
        """Return the topic, added if necessary, and assign the next offset."""
        if self._due and self._due[0][0] <= now:
            self.expire(now)
        self.end += 1
        if (topic := self._topics.get(name)) is not None:
            self._topics.move_to_end(name)
            return topic
        # The last record of a forgotten topic had an offset of at most the floor.
        topic = self._topics[name] = _Topic(self._empty_topics.pop(name, self._floor))
        heappush(self._due, (now + history.ttl_s, name))
        return topic

    def _first_receipt(self, topic: str, key: str, now: float) -> Receipt | None:
        receipts = self._receipts
        while receipts and next(iter(receipts.values()))[0] <= now:
            receipts.popitem(last=False)
        found = receipts.get((topic, key))
        return found and Receipt(epoch=found[1].epoch, offset=found[1].offset, duplicate=True)

    def expire(self, now: float) -> None:
        """Drop the expired records of all topics that are due for a check."""
        while self._due and self._due[0][0] <= now:
            _, name = heappop(self._due)
            topic = self._topics[name]
            topic.drop_expired(now)
            if topic.records:
                heappush(self._due, (topic.records[-1][0], name))
            else:
                del self._topics[name]
                self._keep_last_offset(name, topic.last)

    def _keep_last_offset(self, name: str, last: Offset) -> None:
        self._empty_topics[name] = last
        if len(self._empty_topics) > _MAX_EMPTY_TOPICS:
            _, forgotten = self._empty_topics.popitem(last=False)
            self._floor = max(self._floor, forgotten)

    def read(self, span: ReadSpan, *, now: float) -> ReadResult:
        """Return all records of a span, or a gap. The caller has checked the epoch. See `LogBroker.read`."""
        since, until = span.since, span.until
        if self.end < since:
            return ReadResult(gap=GapReason.AHEAD)
        if since >= until:
            return ReadResult()
        self.expire(now)
        found: list[Record] = []
        room = span.max_bytes
        for topic in self._changed_since(since, span.topics):
            if topic is None:
                return ReadResult(gap=GapReason.TRIMMED)
            topic.drop_expired(now)
            if topic.last_dropped > since:
                return ReadResult(gap=GapReason.TRIMMED)
            for _, record in reversed(topic.records):
                offset = record.offset or 0  # never 0, because every kept record has an offset
                if offset <= since:
                    break
                if offset <= until:
                    found.append(record)
                    room -= len(record.payload)
            if len(found) > span.limit or room < 0:
                return ReadResult(gap=GapReason.TOO_MANY)
        found.sort(key=lambda record: record.offset or 0)
        return ReadResult(records=tuple(found))

    def _changed_since(self, since: Offset, topics: Collection[str] | TopicMatch) -> Iterator[_Topic | None]:
        """Yield the wanted topics that changed after an offset. Yield None for a topic without records."""
        if callable(topics):
            if self._floor > since or any(last > since and topics(name) for name, last in self._empty_topics.items()):
                yield None
            for name, topic in reversed(self._topics.items()):
                if topic.last <= since:
                    break  # all remaining topics changed even earlier
                if topics(name):
                    yield topic
            return
        for name in topics:
            known = self._topics.get(name)
            if known is not None and known.last > since:
                yield known
            elif known is None and self._empty_topics.get(name, self._floor) > since:
                yield None


class Log:
    """The partitions of a channel, and the lock that guards them. Shared by the brokers of one process."""

    def __init__(self, layout: Layout) -> None:
        epoch = secrets.token_hex(8)
        self.layout = layout
        self.lock = threading.Lock()
        self.nodes: tuple[ControlReceiver, ...] = ()
        self.partitions = tuple(Partition(number, epoch) for number in range(layout.partitions))
