"""Reads of the past: through the index where it reaches, else by a scan that begins one window before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from dws_core._log.records import GapReason, ReadResult, ReadSpan
from dws_core._log.stream.envelope import UnreadableEnvelope
from dws_core._log.stream.reading import Collector, Picker, runs
from dws_core._log.stream.session import closing, look_back, readable
from dws_core._log.stream.tail import INDEX_BITS, StreamTail
from dws_core._log.stream.wire import StreamWire, WireLost, WireOutOfRange


class Reader:
    """Reads through one wire.

    Args:
        wire: An open wire.
        step_s: Maximum pause within a read, in seconds.
    """

    def __init__(self, wire: StreamWire, step_s: float) -> None:
        self._wire = wire
        self._step_s = step_s

    async def read(self, tail: StreamTail, span: ReadSpan, now_ms: int) -> ReadResult:
        """Return the records of a span that the tail has passed.

        Raises:
            WireLost: The broker does not answer, or the stream has changed.
        """
        span = replace(span, until=min(span.until, tail.mark))
        if span.since >= span.until:
            return ReadResult()
        try:
            if span.since >= tail.index.lo:
                return await self._pick(tail, span, now_ms)
            return await self._collect(tail, span, now_ms)
        except WireOutOfRange:
            return ReadResult(gap=GapReason.TRIMMED)
        except UnreadableEnvelope as error:
            raise WireLost(f"the stream has changed: {error}") from error

    async def _pick(self, tail: StreamTail, span: ReadSpan, now_ms: int) -> ReadResult:
        places = tail.index.select(span, now_ms)
        if isinstance(places, GapReason):
            return ReadResult(gap=places)
        picker = Picker(places, span.max_bytes)
        for start, stop in runs(places):
            async for offset, data in self._scan(span.partition, start, stop):
                picker.feed(offset, data)
        return picker.result()

    async def _collect(self, tail: StreamTail, span: ReadSpan, now_ms: int) -> ReadResult:
        start = await self._start(span, tail.offset)
        collector = Collector(span, now_ms)
        stop, last = tail.offset, -1
        async for offset, data in self._scan(span.partition, start, stop):
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
        at = span.since >> INDEX_BITS
        if not span.since:
            return await self._origin(span.partition, end)
        async for _, data in self._scan(span.partition, at, end):
            envelope = readable(data)
            if envelope is not None:
                start, _ = await look_back(self._wire, span.partition, at, envelope.time_ms)
                return start if isinstance(start, int) else await self._origin(span.partition, end)
        raise WireOutOfRange(span.partition, at)

    async def _origin(self, partition: int, end: int) -> int:
        """Return the first offset of a stream of which nothing was removed: 0 or 1."""
        async for offset, _ in self._scan_from_origin(partition, end):
            if offset <= 1:
                return offset
            break
        raise WireOutOfRange(partition, 0)

    async def _scan_from_origin(self, partition: int, end: int) -> AsyncIterator[tuple[int, bytes]]:
        try:
            async for item in self._scan(partition, 0, end):
                yield item
        except WireOutOfRange:
            async for item in self._scan(partition, 1, end):
                yield item

    async def _scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        """Scan, and raise `WireLost` if nothing arrives for too long."""
        loop = asyncio.get_running_loop()
        async with closing(self._wire.scan(partition, start, stop)) as records:
            items = aiter(records)
            while True:
                try:
                    async with asyncio.timeout_at(loop.time() + self._step_s):
                        item = await anext(items)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise WireLost("a scan makes no progress") from error
                yield item
