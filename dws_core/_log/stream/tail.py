"""The tail of one partition's stream: from envelopes to records, each once, and to gaps where something is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from dws_core._log.records import GapReason, Head, Offset, Receipt, Record
from dws_core._log.stream.dedupe import Dedupe
from dws_core._log.stream.envelope import Draft, Envelope, Kind, UnreadableEnvelope, decode, identity
from dws_core._log.stream.epochs import Claim, Epochs
from dws_core._log.stream.index import Entry, TopicIndex
from dws_core._log.tail import Advance, Lost

INDEX_BITS: Final = 16
"""A node's offset is the stream's offset, shifted by this, plus the index of the record in its envelope."""

_MAX_INDEX: Final = (1 << INDEX_BITS) - 1


@dataclass(frozen=True, slots=True)
class Stored:
    """Records of this node are stored.

    Attributes:
        first: Sequence number of the first one.
        receipts: Their receipts, in order.
        is_lane: Whether they came through the lane, which has its own sequence numbers.
    """

    first: int
    receipts: list[Receipt]
    is_lane: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """A control message arrived."""

    sender: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Moved:
    """The stream is not the one that was read before, or a part of it was removed. Read it again from the start.

    Attributes:
        reason: `EPOCH` if the stream changed, `TRIMMED` if it only lost its beginning.
        suspect: Whether the stream itself does not show the change, so that a new epoch must start.
    """

    reason: GapReason
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class ProbeSeen:
    """A probe of this node arrived."""

    number: int


TailEvent: TypeAlias = Advance | Lost | Stored | Control | Moved | ProbeSeen


class StreamTail:
    """What one partition's stream contains, up to the last envelope that was read.

    Args:
        partition: Number of the partition.
        publisher: Id of this node.
        claim: The verified epoch where reading begins, or None.
        max_skip: See `WireInfo.max_skip`.

    Attributes:
        partition: Number of the partition.
        offset: Stream offset of the last envelope, -1 before the first.
        mark: The node's watermark.
        time_ms: Time of the last envelope, by the clock of its publisher.
        live: Whether the node was given a baseline from this tail. Then a change of the epoch is `Moved`.
        is_resuming: Whether the last envelope of the connection before must come again first.
        index: The recent past by topic.
        unreadable: Number of envelopes that could not be read.
    """

    def __init__(self, partition: int, publisher: bytes, claim: Claim | None, *, max_skip: int | None) -> None:
        self.offset = -1
        self.mark: Offset = 0
        self.time_ms = 0
        self.live = False
        self.index = TopicIndex(0)
        self.unreadable = 0
        self.partition = partition
        self._identity = b""
        self._publisher = publisher
        self._max_skip = max_skip
        self._epochs = Epochs(claim)
        self._dedupe = Dedupe()
        self.is_resuming = False
        self._last_record: Offset = 0

    @property
    def claim(self) -> Claim | None:
        """The epoch of the stream, or None if nothing has started one."""
        return self._epochs.current

    @property
    def epoch(self) -> str:
        """The epoch as the node sees it, empty if there is none."""
        return self.claim.text if self.claim else ""

    @property
    def head(self) -> Head:
        """Where the tail is."""
        return Head(partition=self.partition, epoch=self.epoch, offset=self.mark)

    def find_key(self, topic: str, key: str, now_ms: int) -> Receipt | None:
        """Return the receipt for a repeat of a key that this tail has seen."""
        found = self._dedupe.find_key(topic, key, now_ms)
        return found and Receipt(epoch=self.epoch, offset=found[0], duplicate=True)

    def is_beyond(self, place: Offset) -> bool:
        """Return whether a place is not in the stream.

        After the last record there are only envelopes without records, for example the probes with which the nodes look
        for the end. Their places have index 0, and the places before a gap have the highest index.
        """
        if place > self.mark:
            return True
        index = place & _MAX_INDEX
        return place > self._last_record and 0 < index < _MAX_INDEX

    def resume(self) -> int:
        """Prepare for a new connection, and return where to follow from. The last envelope must come again."""
        self.is_resuming = True
        return self.offset

    def lacks(self, envelope: Envelope) -> bool:
        """Return whether records that an envelope of the lane follows are still to come."""
        return self._dedupe.lacks(envelope.publisher, envelope.previous)

    def between(self, records: list[Record]) -> Advance:
        """Return the event for records that are not in the stream."""
        return self._advance(self.mark, records)

    def earlier(self, claim: Claim | None) -> StreamTail:
        """Return a tail that reads the same stream from an earlier place.

        Args:
            claim: The verified epoch there, or None.
        """
        return StreamTail(self.partition, b"", claim, max_skip=self._max_skip)

    def feed(self, offset: int, data: bytes) -> list[TailEvent]:
        """Read the next envelope."""
        if self.is_resuming:
            return self._resumed(offset, data)
        if offset <= self.offset:
            return []
        try:
            envelope = decode(data)
        except UnreadableEnvelope:
            self.unreadable += 1
            self.offset, self._identity = offset, identity(data)
            return [self._lost((offset << INDEX_BITS) + 1)]
        is_next = self._is_next(offset) and not self._dedupe.misses(envelope.publisher, envelope.previous)
        events: list[TailEvent] = [] if is_next else [self._lost(offset << INDEX_BITS)]
        self.time_ms = envelope.time_ms
        lo, self.mark = self.mark, offset << INDEX_BITS | max(0, len(envelope.drafts) - 1)
        self.offset, self._identity = offset, identity(data)
        return events + self._read(lo, envelope)

    def _resumed(self, offset: int, data: bytes) -> list[TailEvent]:
        self.is_resuming = False
        if offset == self.offset and identity(data) == self._identity:
            return []
        trimmed = offset > self.offset
        return [Moved(GapReason.TRIMMED if trimmed else GapReason.EPOCH, suspect=not trimmed)]

    def _is_next(self, offset: int) -> bool:
        if self.offset < 0:
            self.index.lo = (offset << INDEX_BITS) - 1
            return True
        return self._max_skip is None or offset <= self.offset + 1 + self._max_skip

    def _lost(self, place: Offset) -> Lost:
        """Announce that something before a place is missing. Reads that begin before it are a gap, too."""
        self.mark = max(self.mark, place - 1)
        self.index = TopicIndex(self.mark, floor=self.mark)
        return Lost(reason=GapReason.TRIMMED, head=self.head)

    def _read(self, lo: Offset, envelope: Envelope) -> list[TailEvent]:
        changed = self._epochs.take(self.offset, envelope)
        if self.live and (changed or self._epochs.is_strange(envelope)):
            return [Moved(GapReason.EPOCH)]
        own = envelope.publisher == self._publisher
        if envelope.kind is Kind.RECORDS:
            return self._records(lo, envelope, own=own)
        events: list[TailEvent] = [self._advance(lo, [])]
        if envelope.kind is Kind.CONTROL and envelope.drafts:
            events.append(Control(envelope.publisher, envelope.drafts[0].payload))
        elif envelope.kind is Kind.PROBE and own:
            events.append(ProbeSeen(envelope.first))
        return events

    def _records(self, lo: Offset, envelope: Envelope, *, own: bool) -> list[TailEvent]:
        self._last_record = self.mark
        repeated = self._dedupe.repeated(envelope.publisher, envelope.first, len(envelope.drafts))
        records: list[Record] = []
        entries: list[Entry] = []
        receipts: list[Receipt] = []
        epoch, base = self.epoch, self.offset << INDEX_BITS
        for index, draft in enumerate(envelope.drafts[repeated:], repeated):
            offset = base | index if draft.size else None
            first = None if draft.key is None else self._first_of(draft.topic, draft.key, envelope.time_ms, offset)
            if first is None:
                records.append(make_record(offset, envelope, draft, index))
                if offset is not None:
                    expires_ms = envelope.time_ms + draft.ttl_ms
                    entries.append(Entry(draft.topic, offset, expires_ms, draft.size, len(draft.payload)))
            if own:
                place = offset if first is None else first[0]
                receipts.append(Receipt(epoch=epoch, offset=place, duplicate=first is not None))
        self.index.add(entries)
        events: list[TailEvent] = [self._advance(lo, records)]
        if receipts:
            events.append(Stored(envelope.first + repeated, receipts))
        return events

    def _first_of(self, topic: str, key: str, time_ms: int, offset: Offset | None) -> tuple[Offset | None] | None:
        """Return the place of an earlier record with the same key; if there is none, note this one."""
        first = self._dedupe.find_key(topic, key, time_ms)
        if first is None:
            self._dedupe.add_key(topic, key, time_ms, offset)
        return first

    def _advance(self, lo: Offset, records: list[Record]) -> Advance:
        return Advance(partition=self.partition, epoch=self.epoch, lo=lo, hi=self.mark, records=records)


def make_record(offset: Offset | None, envelope: Envelope, draft: Draft, index: int) -> Record:
    """Return the record of a draft: number `index` of its envelope."""
    return Record(
        offset=offset,
        topic=draft.topic,
        payload=draft.payload,
        ts_ms=envelope.time_ms,
        publisher=envelope.publisher,
        seq=envelope.first + index,
        key=draft.key,
    )
