"""Questions to the logs: where they end, and what was missed."""

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
"""Records to ask for at once."""


class _Missing(Exception):
    """Something that was asked for cannot be had."""

    def __init__(self, gap: GapReason) -> None:
        super().__init__(gap)
        self.gap = gap


class Reader:
    """Asks through the command connections of the moment.

    Args:
        names: Keys and channels.
        commands: Returns the connection to a partition's server; raises `BrokerUnavailable` while there is none.
    """

    def __init__(self, names: Names, commands: Callable[[int], Commands]) -> None:
        self._names = names
        self._commands = commands

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Say where the logs end now."""
        return dict(zip(partitions, await asyncio.gather(*map(self._head, partitions)), strict=True))

    async def _head(self, partition: int) -> Head:
        commands = self._commands(partition)
        epoch, offset = await commands.call("HMGET", self._names.base(partition) + "m", "e", "s")
        if epoch is None:
            commands.abort()  # the next connection begins it anew
            raise BrokerUnavailable(f"the log of partition {partition} is gone from Redis.", fix="try again")
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
            commands.abort()  # a part is gone: the next connection begins it anew
            return ReadResult(gap=GapReason.EPOCH)
        if int(end) < span.since:
            return ReadResult(gap=GapReason.AHEAD)
        if span.since >= span.until:
            return ReadResult()
        now_ms = int(now_s) * 1000 + int(now_us) // 1000
        question = _Question(commands, base, span, floor=int(floor), now_ms=now_ms)
        try:
            records = await question.answer()
        except _Missing as missing:
            return ReadResult(gap=missing.gap)
        (again,) = await commands.call("HMGET", base + "m", "e")
        return ReadResult(records=tuple(records)) if again == current else ReadResult(gap=GapReason.EPOCH)


@dataclass(slots=True)
class _Stretch:
    """What is still to be read of a topic: `(at, end]`."""

    topic: str
    at: Offset
    end: Offset


class _Question:
    """One read: the records of some topics in `(since, until]`, in steps, so that no more is held than may be answered."""

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

    async def answer(self) -> list[Record]:
        topics = self._span.topics
        last = await (self._changed(topics) if callable(topics) else self._scores(topics))
        left = deque(
            _Stretch(topic, self._span.since, min(offset, self._span.until))
            for topic, offset in last.items()
            if offset > self._span.since
        )
        while left:
            await self._step(left)
        self._found.sort(key=lambda record: record.offset or 0)
        return self._found

    async def _step(self, left: deque[_Stretch]) -> None:
        """Read on, of as many topics as possible."""
        records = self._room()
        share = max(1, records // len(left))
        some = [left.popleft() for _ in range(min(len(left), records // share))]
        most = min(share, self._span.limit + 1 - len(self._found))
        await asyncio.gather(*(self._read_on(stretch, most) for stretch in some))
        if len(self._found) > self._span.limit or self._bytes > self._span.max_bytes:
            raise _Missing(GapReason.TOO_MANY)
        left += (stretch for stretch in some if stretch.at < stretch.end)

    def _room(self) -> int:
        """Return how many records to ask for: as many as have come, and no more than fit if they are as large as these."""
        come = len(self._found)
        records = max(_FIRST_STEP, min(come, _LARGEST_STEP))
        if not self._bytes:
            return records
        return min(records, (self._span.max_bytes - self._bytes) * come // self._bytes + 1)

    async def _scores(self, topics: Collection[str]) -> dict[str, Offset]:
        """Return the last offset of each topic; of one that is not known, the floor is the highest that it can have."""
        index = self._base + "i"
        scores = await asyncio.gather(*(self._commands.call("ZSCORE", index, topic) for topic in topics))
        return {t: self._floor if s is None else int(float(s)) for t, s in zip(topics, scores, strict=True)}

    async def _changed(self, match: TopicMatch) -> dict[str, Offset]:
        if self._floor > self._span.since:
            raise _Missing(GapReason.TRIMMED)  # a topic that matches may have been forgotten
        flat = await self._commands.call(
            "ZRANGEBYSCORE", self._base + "i", f"({self._span.since}", "+inf", "WITHSCORES"
        )
        names = [(name.decode(), int(float(score))) for name, score in zip(flat[::2], flat[1::2], strict=True)]
        return {name: score for name, score in names if match(name)}

    async def _read_on(self, stretch: _Stretch, most: int) -> None:
        count = min(most, stretch.end - stretch.at)  # a topic has at most one record for each offset
        stream = self._base + "h:" + stretch.topic
        found = await self._commands.call("XRANGE", stream, f"({stretch.at}", "+", "COUNT", count)
        entries = [read_entry(stretch.topic, entry) for entry in found]
        if not entries or (entries[0].record.prev or 0) > stretch.at:
            raise _Missing(GapReason.TRIMMED)  # what was published behind `at` is not kept
        wanted = [entry for entry in entries if (entry.record.offset or 0) <= self._span.until]
        if any(self._is_old(entry) for entry in wanted):
            raise _Missing(GapReason.TRIMMED)
        self._found += (entry.record for entry in wanted)
        self._bytes += sum(len(entry.record.payload) for entry in wanted)
        stretch.at = entries[-1].record.offset or 0

    def _is_old(self, entry: Entry) -> bool:
        return entry.expires_ms <= self._now_ms
