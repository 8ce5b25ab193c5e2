"""Reads from the logs: their ends, and the records of a span."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from dws_core.plugin import BrokerUnavailable, GapReason, Head, Offset, ReadResult, ReadSpan, Record, TopicMatch
from dws_redis._connection import Commands
from dws_redis._format import Entry, Names, read_entry

_FIRST_STEP: Final = 64
_LARGEST_STEP: Final = 1024
"""Number of records to request at once."""

_MATCH_STEP: Final = 1000
"""Number of topics that are matched before the event loop continues with others."""


class _GapFound(Exception):
    """A part of the requested span is unavailable."""

    def __init__(self, gap: GapReason) -> None:
        super().__init__(gap)
        self.gap = gap


class Reader:
    """Reads over the current command connections.

    Args:
        names: Names of keys and channels.
        commands: Returns the connection to a partition's server, or raises `BrokerUnavailable` if there is none.
    """

    def __init__(self, names: Names, commands: Callable[[int], Commands]) -> None:
        self._names = names
        self._commands = commands

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Return the current ends of the logs."""
        return dict(zip(partitions, await asyncio.gather(*map(self._head, partitions)), strict=True))

    async def _head(self, partition: int) -> Head:
        commands = self._commands(partition)
        epoch, offset = await commands.call("HMGET", self._names.base(partition) + "m", "e", "s")
        if epoch is None:
            commands.abort()  # the next connection starts a new log
            raise BrokerUnavailable(f"Redis no longer has the log of partition {partition}.", fix="try again")
        return Head(partition=partition, epoch=epoch.decode(), offset=int(offset))

    async def read(self, span: ReadSpan) -> ReadResult:
        """Return all records of a span, or a gap. See `LogBroker.read`."""
        commands, base = self._commands(span.partition), self._names.base(span.partition)
        (now_s, now_us), (current, end, floor), indexed = await asyncio.gather(
            commands.call("TIME"),
            commands.call("HMGET", base + "m", "e", "s", "f"),
            commands.call("EXISTS", base + "i"),
        )
        if current is None or current.decode() != span.epoch:
            return ReadResult(gap=GapReason.EPOCH)
        if int(end) > int(floor) and not indexed:
            commands.abort()  # Redis lost the index, so the next connection starts a new epoch
            return ReadResult(gap=GapReason.EPOCH)
        if int(end) < span.since:
            return ReadResult(gap=GapReason.AHEAD)
        if span.since >= span.until:
            return ReadResult()
        now_ms = int(now_s) * 1000 + int(now_us) // 1000
        span_read = _SpanRead(commands, base, span, floor=int(floor), now_ms=now_ms)
        try:
            records = await span_read.run()
        except _GapFound as found:
            return ReadResult(gap=found.gap)
        (again,) = await commands.call("HMGET", base + "m", "e")
        return ReadResult(records=tuple(records)) if again == current else ReadResult(gap=GapReason.EPOCH)


@dataclass(slots=True)
class _TopicRange:
    """The offsets `(at, end]` of a topic that are not read yet."""

    topic: str
    at: Offset
    end: Offset


class _SpanRead:
    """One read of the records of a span, in steps, so that it never holds more than the limits allow."""

    def __init__(
        self,
        commands: Commands,
        base: str,
        span: ReadSpan,
        *,
        floor: Offset,
        now_ms: int,
    ) -> None:
        self._commands = commands
        self._base = base
        self._span = span
        self._floor = floor
        self._now_ms = now_ms
        self._found: list[Record] = []
        self._bytes = 0

    async def run(self) -> list[Record]:
        topics = self._span.topics
        last = await (self._changed_topics(topics) if callable(topics) else self._last_offsets(topics))
        left = deque(
            _TopicRange(topic, self._span.since, min(offset, self._span.until))
            for topic, offset in last.items()
            if offset > self._span.since
        )
        while left:
            await self._step(left)
        self._found.sort(key=lambda record: record.offset or 0)
        return self._found

    async def _step(self, left: deque[_TopicRange]) -> None:
        """Read the next records of as many topics as possible."""
        records = self._next_count()
        share = max(1, records // len(left))
        some = [left.popleft() for _ in range(min(len(left), records // share))]
        most = min(share, self._span.limit + 1 - len(self._found))
        await asyncio.gather(*(self._read_range(range_, most) for range_ in some))
        if len(self._found) > self._span.limit or self._bytes > self._span.max_bytes:
            raise _GapFound(GapReason.TOO_MANY)
        left += (range_ for range_ in some if range_.at < range_.end)

    def _next_count(self) -> int:
        """Return how many records to request: as many as were found so far, if their average size fits the limit."""
        count = len(self._found)
        records = max(_FIRST_STEP, min(count, _LARGEST_STEP))
        if not self._bytes:
            return records
        return min(records, (self._span.max_bytes - self._bytes) * count // self._bytes + 1)

    async def _last_offsets(self, topics: Collection[str]) -> dict[str, Offset]:
        """Return the last offset of each topic. Use the floor, the highest possible one, for an unknown topic."""
        index = self._base + "i"
        scores = await asyncio.gather(*(self._commands.call("ZSCORE", index, topic) for topic in topics))
        return {t: self._floor if s is None else int(float(s)) for t, s in zip(topics, scores, strict=True)}

    async def _changed_topics(self, match: TopicMatch) -> dict[str, Offset]:
        if self._floor > self._span.since:
            raise _GapFound(GapReason.TRIMMED)  # a topic that matches may have been forgotten
        flat = await self._commands.call(
            "ZRANGEBYSCORE", self._base + "i", f"({self._span.since}", "+inf", "WITHSCORES"
        )
        names = [(name.decode(), int(float(score))) for name, score in zip(flat[::2], flat[1::2], strict=True)]
        found: dict[str, Offset] = {}
        for number, (name, score) in enumerate(names):
            if number % _MATCH_STEP == _MATCH_STEP - 1:
                await asyncio.sleep(0)
            if match(name):
                found[name] = score
        return found

    async def _read_range(self, range_: _TopicRange, most: int) -> None:
        count = min(most, range_.end - range_.at)  # a topic has at most one record for each offset
        stream = self._base + "h:" + range_.topic
        found = await self._commands.call("XRANGE", stream, f"({range_.at}", "+", "COUNT", count)
        try:
            entries = [read_entry(range_.topic, entry) for entry in found]
        except (ValueError, KeyError, TypeError, AssertionError, AttributeError):
            raise _GapFound(GapReason.UNREADABLE) from None  # another program has written to the stream
        if not entries or (entries[0].record.prev or 0) > range_.at:
            raise _GapFound(GapReason.TRIMMED)  # records after `at` were dropped
        wanted = [entry for entry in entries if (entry.record.offset or 0) <= self._span.until]
        if any(self._is_expired(entry) for entry in wanted):
            raise _GapFound(GapReason.TRIMMED)
        self._found += (entry.record for entry in wanted)
        self._bytes += sum(len(entry.record.payload) for entry in wanted)
        range_.at = entries[-1].record.offset or 0

    def _is_expired(self, entry: Entry) -> bool:
        return entry.expires_ms <= self._now_ms
