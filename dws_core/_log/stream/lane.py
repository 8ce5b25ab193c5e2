"""Records of topics without history, on a wire that can send to all nodes without storing.

They do not pass through the stream, so that they never push stored records out of it. A node that is not connected misses
them. Repeats are recognized as in the stream, but by each node for itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from dws_core._log.records import Receipt, Record
from dws_core._log.stream.dedupe import Dedupe
from dws_core._log.stream.envelope import Envelope, readable
from dws_core._log.stream.publishing import PublishQueue
from dws_core._log.stream.tail import Stored, StreamTail, make_record
from dws_core._log.tail import Advance

T = TypeVar("T")

_NUMBER_BYTES: Final = 4
_MAX_HELD: Final = 1000
_MAX_HELD_BYTES: Final = 16_777_216
"""Number and size of the envelopes that wait for the stream. Above it, the oldest ones do not wait any longer."""


def to_all(partition: int, envelope: bytes) -> bytes:
    """Return an envelope as a message for all nodes."""
    return partition.to_bytes(_NUMBER_BYTES, "big") + envelope


def from_any(data: bytes) -> tuple[int, Envelope | None]:
    """Return the partition and the envelope in a message from any node. The envelope is None if it cannot be read."""
    return int.from_bytes(data[:_NUMBER_BYTES], "big"), readable(data[_NUMBER_BYTES:])


@dataclass(slots=True)
class Lane(Generic[T]):
    """The records without history of one partition.

    An envelope states the last record that its publisher has stored before it. It is delivered after that, so that the
    order of one publisher's records is kept.

    Attributes:
        publisher: Id of this node.
        queue: Its publishes.
    """

    publisher: bytes
    queue: PublishQueue[T]
    _dedupe: Dedupe = field(default_factory=Dedupe)
    _held: deque[Envelope] = field(default_factory=deque)
    _held_bytes: int = 0

    def find_key(self, topic: str, key: str, now_ms: int, epoch: str) -> Receipt | None:
        """Return the receipt for a repeat of a key that this node has received."""
        found = self._dedupe.find_key(topic, key, now_ms)
        return found and Receipt(epoch=epoch, offset=None, duplicate=True)

    def feed(self, envelope: Envelope, tail: StreamTail) -> list[Advance | Stored]:
        """Take an envelope that has arrived, and return the events of all that are due."""
        self._held.append(envelope)
        self._held_bytes += _size(envelope)
        return self.due(tail)

    def due(self, tail: StreamTail) -> list[Advance | Stored]:
        """Return the events of the envelopes whose predecessors the tail contains."""
        events: list[Advance | Stored] = []
        while self._held and (self._is_full or not tail.lacks(self._held[0])):
            envelope = self._held.popleft()
            self._held_bytes -= _size(envelope)
            events += self._read(envelope, tail)
        return events

    def clear(self) -> None:
        """Forget the envelopes that wait."""
        self._held.clear()
        self._held_bytes = 0

    @property
    def _is_full(self) -> bool:
        return len(self._held) > _MAX_HELD or self._held_bytes > _MAX_HELD_BYTES

    def _read(self, envelope: Envelope, tail: StreamTail) -> list[Advance | Stored]:
        repeated = self._dedupe.repeated(envelope.publisher, envelope.first, len(envelope.drafts))
        records: list[Record] = []
        receipts: list[Receipt] = []
        for index in range(repeated, len(envelope.drafts)):
            draft = envelope.drafts[index]
            known = draft.key is not None and self._knows(draft.topic, draft.key, envelope.time_ms)
            receipts.append(Receipt(epoch=tail.epoch, offset=None, duplicate=known))
            if not known:
                records.append(make_record(None, envelope, draft, index))
        events: list[Advance | Stored] = [tail.between(records)] if records else []
        if receipts and envelope.publisher == self.publisher:
            events.append(Stored(envelope.first + repeated, receipts, is_lane=True))
        return events

    def _knows(self, topic: str, key: str, time_ms: int) -> bool:
        if self._dedupe.find_key(topic, key, time_ms) is not None:
            return True
        self._dedupe.add_key(topic, key, time_ms, None)
        return False


def _size(envelope: Envelope) -> int:
    return sum(len(draft.payload) for draft in envelope.drafts)
