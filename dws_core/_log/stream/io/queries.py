"""The calls of the core that wait for the streams: interest, heads, reads and control messages."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from dws_core._log.records import GapReason, Head, ReadResult, ReadSpan
from dws_core._log.stream.io.clock import Clock
from dws_core._log.stream.io.failures import reason_of
from dws_core._log.stream.io.host import Log
from dws_core._log.stream.io.reader import Reader
from dws_core._log.stream.io.reports import Reports
from dws_core._log.stream.io.scanning import Scanner
from dws_core._log.stream.io.waiters import Waiters
from dws_core._log.stream.lane import to_all
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.tail import StreamTail
from dws_core._log.stream.wire import StreamWire, WireError, sends_to_all

_READS: Final = 8
"""Maximum number of reads of a node at the same time. Each may need a connection."""


class Queries:
    """Questions to the streams.

    Args:
        logs: The partitions.
        settings: How long to wait.
        clock: The time.
        reports: For error texts.

    Attributes:
        wire: The wire of the newest session. Set before the first call.
        interest: The partitions that the core wants.
        waiters: Calls that wait for a tail.
    """

    def __init__(self, logs: Sequence[Log], *, settings: StreamSettings, clock: Clock, reports: Reports) -> None:
        self.wire: StreamWire
        self.interest: frozenset[int] = frozenset()
        self.waiters = Waiters()
        self._logs = logs
        self._settings = settings
        self._clock = clock
        self._reports = reports
        self._choosing = asyncio.Lock()
        self._reading = asyncio.Semaphore(_READS)
        self._extending = [asyncio.Lock() for _ in logs]

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Deliver these partitions from now on."""
        async with self._choosing:
            while waiting := [number for number in partitions if not self._logs[number].is_live]:
                await self._live(waiting[0])
            self.interest = partitions
            return {number: self._logs[number].reading.head for number in partitions}

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Return where the streams end, as the broker reports it."""
        for number in partitions:
            await self._caught_up(number)
        return {number: self._logs[number].reading.head for number in partitions}

    async def read(self, span: ReadSpan) -> ReadResult:
        """Return the records of a span, or a gap."""
        tail = await self._live(span.partition)
        if not self._logs[span.partition].stores:
            return ReadResult(gap=GapReason.UNSUPPORTED)
        if span.epoch == tail.epoch and max(span.since, span.until) > tail.mark:
            tail = await self._caught_up(span.partition)
        if span.epoch != tail.epoch:
            return ReadResult(gap=GapReason.EPOCH)
        if tail.is_beyond(span.since):
            return ReadResult(gap=GapReason.AHEAD)
        scanner = Scanner(self.wire, span.partition, self._settings.step_s)
        reader = Reader(scanner, tail, self._clock.now_ms(), self._extending[span.partition])
        try:
            async with self._reading:
                result = await reader.read(span)
        except (WireError, TimeoutError) as error:
            raise self._reports.unavailable(reason_of(error)) from error
        log = self._logs[span.partition]
        if log.tail is not tail or not log.is_live:
            raise self._reports.unavailable("the stream was opened again during a read")
        return result

    async def send_control(self, payload: bytes) -> None:
        """Send a control message, through the wire or through partition 0."""
        await self._live(0)
        wire = self.wire
        data = self._logs[0].control(self._clock.now_ms(), payload)
        try:
            if sends_to_all(wire):
                await wire.send_control(to_all(0, data))
            else:
                await wire.append(0, data)
        except WireError as error:
            raise self._reports.unavailable(error.reason) from error

    async def _live(self, number: int) -> StreamTail:
        """Return the tail of a live partition, and wait a little for it."""
        while not self._logs[number].is_live:
            try:
                async with asyncio.timeout(self._settings.wait_s):
                    await self.waiters.until_live(number)
            except TimeoutError:
                raise self._reports.unavailable() from None
        return self._logs[number].reading

    async def _caught_up(self, number: int) -> StreamTail:
        """Return the tail of a partition once it contains everything that is stored now."""
        tail = await self._live(number)
        if not self._logs[number].stores:
            return tail
        wire = self.wire
        try:
            async with asyncio.timeout(self._settings.step_s):
                bounds = await wire.bounds(number)
                if bounds is None:
                    await self._probed(wire, number)
                elif bounds.next - 1 > tail.offset:
                    await self.waiters.until_reached(number, bounds.next - 1)
        except (WireError, TimeoutError) as error:
            raise self._reports.unavailable(reason_of(error)) from error
        return await self._live(number)

    async def _probed(self, wire: StreamWire, number: int) -> None:
        probe, data = self._logs[number].next_probe(self._clock.now_ms())
        seen = self.waiters.until_probe(number, probe)
        await wire.append(number, data)
        await seen
