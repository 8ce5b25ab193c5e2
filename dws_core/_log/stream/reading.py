"""Reading the past of a stream: as many records as are wanted, or the reason for a gap. Never a part."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from dws_core._log.records import GapReason, Offset, ReadResult, Record
from dws_core._log.stream.envelope import Envelope, UnreadableEnvelope, decode
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
