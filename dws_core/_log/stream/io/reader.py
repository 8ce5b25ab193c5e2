"""Reads of the past through the index. Where it does not reach, the stream is read once to extend it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from dws_core._log.records import GapReason, Offset, ReadResult, ReadSpan
from dws_core._log.stream.envelope import UnreadableEnvelope
from dws_core._log.stream.epochs import Claim
from dws_core._log.stream.index import Selection, TopicIndex
from dws_core._log.stream.io.joining import look_back
from dws_core._log.stream.io.scanning import Scanner, closing
from dws_core._log.stream.reading import Picker, runs
from dws_core._log.stream.tail import INDEX_BITS, StreamTail
from dws_core._log.stream.wire import WireLost, WireOutOfRange

_REACH: Final = 100_000
"""Number of envelopes before the end of a stream that reads may go back."""

_EXTEND_BYTES: Final = 268_435_456
"""Maximum size of the envelopes that are read to extend the index once. They are not kept."""

_LEAST: Final = 64 << INDEX_BITS
"""Fewer offsets than these are not searched for the place where the stored records begin."""

_STEP_TOPICS: Final = 500
"""Number of topics that are looked up before other tasks continue."""


class Reader:
    """The reads of one partition.

    Args:
        scanner: Scans the partition.
        tail: The tail of the partition.
        now_ms: The time.
        turn: Held while the index is extended, so that the stream is read once for all reads that wait.
    """

    def __init__(self, scanner: Scanner, tail: StreamTail, now_ms: int, turn: asyncio.Lock) -> None:
        self._scanner = scanner
        self._tail = tail
        self._now_ms = now_ms
        self._turn = turn

    async def read(self, span: ReadSpan) -> ReadResult:
        """Return the records of a span that the tail has passed.

        Raises:
            WireLost: The broker does not answer, or the stream has changed.
        """
        span = replace(span, until=min(span.until, self._tail.mark))
        if span.since >= span.until:
            return ReadResult()
        try:
            if span.since < self._tail.index.lo:
                async with self._turn:
                    await self._extend_to(span.since)
            return await self._pick(span)
        except WireOutOfRange:
            return ReadResult(gap=GapReason.TRIMMED)
        except UnreadableEnvelope as error:
            raise WireLost(f"the stream has changed: {error}") from error

    async def _pick(self, span: ReadSpan) -> ReadResult:
        index = self._tail.index
        selection = Selection(index, span, self._now_ms)
        for _ in selection.steps(_STEP_TOPICS):
            await asyncio.sleep(0)
        if span.since < index.lo:
            return ReadResult(gap=index.floor_reason, next_since=index.lo)
        places = selection.result()
        if isinstance(places, ReadResult):
            return places
        picker = Picker(places, span.max_bytes)
        for start, stop in runs(places):
            async with closing(self._scanner.scan(start, stop)) as records:
                async for offset, data in records:
                    picker.feed(offset, data)
        return picker.result()

    async def _extend_to(self, since: Offset) -> None:
        """Let the index reach back to a place, or as far as possible."""
        index = self._tail.index
        index.raise_floor((self._tail.offset - _REACH) << INDEX_BITS, GapReason.TOO_MANY)
        # Twice as far at least, so that the number of scans does not grow with the number of reads.
        further = index.lo - max(self._tail.mark - index.lo, _LEAST)
        wanted = max(min(since, further), index.floor, 0)
        while since < index.lo and index.floor < index.lo and index is self._tail.index:
            place = wanted if wanted >= index.floor else (index.floor + index.lo) // 2
            if place != wanted and index.lo - index.floor < _LEAST:
                index.raise_floor(index.lo, index.floor_reason)
            elif not await self._extend(index, place):
                if place == wanted == since:
                    index.raise_floor(index.lo, GapReason.TOO_MANY)
                wanted = since

    async def _extend(self, index: TopicIndex, place: Offset) -> bool:
        """Let the index reach back to a place. If that was removed, raise its floor. Return False if it is too far."""
        stop = (index.lo + 1) >> INDEX_BITS
        try:
            past = await self._scan(*await self._start(place, stop), stop)
        except WireOutOfRange:
            index.raise_floor(((place >> INDEX_BITS) + 1) << INDEX_BITS, GapReason.TRIMMED)
            return True
        if past is None:
            return False
        index.extend(past.index, place)
        return True

    async def _scan(self, start: int, claim: Claim | None, stop: int) -> StreamTail | None:
        """Read a part of the stream like a tail. Return None if it is too large.

        Raises:
            WireLost: The scan ended before `stop`.
            WireOutOfRange: Records were removed.
        """
        past, room = self._tail.earlier(claim), _EXTEND_BYTES
        async with closing(self._scanner.scan(start, stop)) as records:
            async for offset, data in records:
                past.feed(offset, data)
                room -= len(data)
                if room < 0:
                    return None
        if past.offset != stop:
            raise WireLost("a scan ended too early")
        if claim is None and past.index.floor < 0:
            past.index.lo = -1  # the scan began where the stream began, and nothing was missing
        return past

    async def _start(self, place: Offset, end: int) -> tuple[int, Claim | None]:
        """Return where to begin, one window before a place, and the epoch there.

        Raises:
            WireOutOfRange: The window begins before everything that is stored.
        """
        if place:
            at = place >> INDEX_BITS
            envelope = await self._scanner.sample(at, end)
            if envelope is None:
                raise WireOutOfRange(self._tail.partition, at)
            start, claim = await look_back(self._scanner, at, envelope.time_ms)
            if isinstance(start, int):
                return start, claim
        origin = await self._scanner.origin(end)
        if origin is None:
            raise WireOutOfRange(self._tail.partition, 0)
        return origin, None
