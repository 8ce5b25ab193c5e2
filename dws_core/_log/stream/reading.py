"""Reading the past of a stream: as many records as are wanted, or the reason for a gap. Never a part."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from dws_core._log.records import GapReason, Offset, ReadResult, ReadSpan, Record
from dws_core._log.stream.dedupe import Dedupe
from dws_core._log.stream.envelope import Draft, Envelope, Kind, UnreadableEnvelope, decode
from dws_core._log.stream.index import Entry, kept
from dws_core._log.stream.tail import INDEX_BITS, make_record

_JOIN: int = 32
"""Two wanted envelopes that are closer than this are read by one scan."""


def runs(places: Sequence[Offset]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of stream offsets, both ends included, that contain some records. `places` ascend."""
    start: int | None = None
    stop = 0
    for offset in (place >> INDEX_BITS for place in places):
        if start is None:
            start = offset
        elif offset - stop > _JOIN:
            yield start, stop
            start = offset
        stop = offset
    if start is not None:
        yield start, stop


def record_at(place: Offset, envelope: Envelope) -> Record:
    """Return the record at a place.

    Raises:
        IndexError: The envelope has none there.
    """
    index = place & ((1 << INDEX_BITS) - 1)
    return make_record(place, envelope, envelope.drafts[index], index)


class Picker:
    """Takes known records out of scanned envelopes.

    Args:
        places: Where they are, ascending.
        max_bytes: Maximum size of their payloads, in bytes.
    """

    def __init__(self, places: Sequence[Offset], max_bytes: int) -> None:
        self._left = deque(places)
        self._room = max_bytes
        self._found: list[Record] = []

    def feed(self, offset: int, data: bytes) -> None:
        """Take the records of an envelope.

        Raises:
            UnreadableEnvelope: The stream does not contain what the tail saw.
        """
        if not self._left or self._left[0] >> INDEX_BITS != offset:
            return
        envelope = decode(data)
        while self._left and self._left[0] >> INDEX_BITS == offset:
            try:
                record = record_at(self._left.popleft(), envelope)
            except IndexError as error:
                raise UnreadableEnvelope("the stream was replaced") from error
            self._room -= len(record.payload)
            self._found.append(record)

    def result(self) -> ReadResult:
        """Return all records.

        Raises:
            UnreadableEnvelope: A record is missing.
        """
        if self._left:
            raise UnreadableEnvelope("a record is missing")
        return ReadResult(gap=GapReason.TOO_MANY) if self._room < 0 else ReadResult(records=tuple(self._found))


class Collector:
    """Reads all envelopes of a range that begins one window before the span.

    Args:
        span: What is wanted.
        now_ms: The time.
    """

    def __init__(self, span: ReadSpan, now_ms: int) -> None:
        self._span = span
        self._now_ms = now_ms
        topics = span.topics
        self._wanted = topics if callable(topics) else frozenset(topics).__contains__
        self._dedupe = Dedupe()
        self._entries: dict[str, deque[Entry]] = {}
        self._records: list[Record] = []
        self._room = span.max_bytes
        self.gap: GapReason | None = None

    def feed(self, offset: int, data: bytes) -> None:
        """Read the next envelope. Stop when `gap` is set."""
        try:
            envelope = decode(data)
        except UnreadableEnvelope:
            place = offset << INDEX_BITS
            self.gap = self.gap or (GapReason.TRIMMED if self._span.since < place <= self._span.until else None)
            return
        if envelope.kind is not Kind.RECORDS:
            return
        repeated = self._dedupe.repeated(envelope.publisher, envelope.first, len(envelope.drafts))
        for index in range(repeated, len(envelope.drafts)):
            self._take(offset << INDEX_BITS | index, envelope, envelope.drafts[index], index)

    def result(self) -> ReadResult:
        """Return all records, or the gap."""
        for entries in self._entries.values():
            if kept(entries, self._span.until, self._now_ms) is None:
                self.gap = self.gap or GapReason.TRIMMED
        return ReadResult(gap=self.gap) if self.gap else ReadResult(records=tuple(self._records))

    def _take(self, place: Offset, envelope: Envelope, draft: Draft, index: int) -> None:
        if draft.key is not None:
            if self._dedupe.find_key(draft.topic, draft.key, envelope.time_ms) is not None:
                return
            self._dedupe.add_key(draft.topic, draft.key, envelope.time_ms, place)
        if not draft.size or place <= self._span.since or not self._wanted(draft.topic):
            return
        entries = self._entries.setdefault(draft.topic, deque())
        entries.appendleft(Entry(place, envelope.time_ms + draft.ttl_ms, draft.size))
        if place <= self._span.until:
            self._room -= len(draft.payload)
            self._records.append(make_record(place, envelope, draft, index))
            if len(self._records) > self._span.limit or self._room < 0:
                self.gap = GapReason.TOO_MANY
