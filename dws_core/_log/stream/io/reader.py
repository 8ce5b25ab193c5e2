"""Reads of the past: through the index where it reaches, else by a scan that begins one window before."""

from __future__ import annotations

from dataclasses import replace

from dws_core._log.records import GapReason, ReadResult, ReadSpan
from dws_core._log.stream.envelope import UnreadableEnvelope
from dws_core._log.stream.io.joining import look_back
from dws_core._log.stream.io.scanning import Scanner, closing
from dws_core._log.stream.reading import Collector, Picker, runs
from dws_core._log.stream.tail import INDEX_BITS, StreamTail
from dws_core._log.stream.wire import WireLost, WireOutOfRange


class Reader:
    """One read.

    Args:
        scanner: Scans the partition.
        tail: The tail of the partition.
        now_ms: The time.
    """

    def __init__(self, scanner: Scanner, tail: StreamTail, now_ms: int) -> None:
        self._scanner = scanner
        self._tail = tail
        self._now_ms = now_ms

    async def read(self, span: ReadSpan) -> ReadResult:
        """Return the records of a span that the tail has passed.

        Raises:
            WireLost: The broker does not answer, or the stream has changed.
        """
        span = replace(span, until=min(span.until, self._tail.mark))
        if span.since >= span.until:
            return ReadResult()
        try:
            return await (self._pick(span) if span.since >= self._tail.index.lo else self._collect(span))
        except WireOutOfRange:
            return ReadResult(gap=GapReason.TRIMMED)
        except UnreadableEnvelope as error:
            raise WireLost(f"the stream has changed: {error}") from error

    async def _pick(self, span: ReadSpan) -> ReadResult:
        places = self._tail.index.select(span, self._now_ms)
        if isinstance(places, GapReason):
            return ReadResult(gap=places)
        picker = Picker(places, span.max_bytes)
        for start, stop in runs(places):
            async with closing(self._scanner.scan(start, stop)) as records:
                async for offset, data in records:
                    picker.feed(offset, data)
        return picker.result()

    async def _collect(self, span: ReadSpan) -> ReadResult:
        stop, last = self._tail.offset, -1
        start = await self._start(span, stop)
        collector = Collector(span, self._now_ms)
        async with closing(self._scanner.scan(start, stop)) as records:
            async for offset, data in records:
                collector.feed(offset, data)
                last = offset
                if collector.gap is not None:
                    return collector.result()
        if last != stop:
            raise WireLost("a scan ended too early")
        return collector.result()

    async def _start(self, span: ReadSpan, end: int) -> int:
        """Return where to begin, one window before the span.

        Raises:
            WireOutOfRange: The window begins before everything that is stored, so the answer is unknown.
        """
        if span.since:
            at = span.since >> INDEX_BITS
            envelope = await self._scanner.sample(at, end)
            if envelope is None:
                raise WireOutOfRange(span.partition, at)
            start, _ = await look_back(self._scanner, at, envelope.time_ms)
            if isinstance(start, int):
                return start
        origin = await self._scanner.origin(end)
        if origin is None:
            raise WireOutOfRange(span.partition, 0)
        return origin
