"""Reading missed records: complete or not at all, in few steps, and with bounded memory."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

import pytest
from dws_redis import RedisBroker
from dws_redis._connection import Commands
from dws_redis._reader import Reader
from services.redis import PrivateRedis
from support.broker_load import IgnoringSink

from dws_core.plugin import BrokerURL, GapReason, History, Layout, ReadResult, ReadSpan, Record

KEPT: Final = History(size=10_000, ttl_s=600)
NUMBERS: Final = count()


class Log:
    """A log of one partition, its published records, and the load of Redis for a read."""

    def __init__(self, redis: PrivateRedis, broker: RedisBroker, channel: str) -> None:
        self.redis = redis
        self.broker = broker
        self.base = f"dws:{{0:{channel}}}:"
        self.published: list[tuple[int, str, bytes]] = []

    async def fill(self, topics: list[str], payload: bytes = b"x", history: History = KEPT) -> None:
        receipts = await asyncio.gather(*(self.broker.publish(0, t, payload, history=history) for t in topics))
        self.published += [(r.offset or 0, t, payload) for r, t in zip(receipts, topics, strict=True)]

    async def read(
        self,
        topics: Any = None,
        *,
        since: int = 0,
        until: int | None = None,
        limit: int = 10_000,
        max_bytes: int = 2**30,
    ) -> ReadResult:
        head = (await self.broker.heads([0]))[0]
        self.redis.command("CONFIG", "RESETSTAT")
        return await self.broker.read(
            ReadSpan(
                partition=0,
                since=since,
                until=head.offset if until is None else until,
                epoch=head.epoch,
                topics=topics or (lambda _: True),
                limit=limit,
                max_bytes=max_bytes,
            )
        )

    def wanted(self, topics: Callable[[str], bool], since: int, until: int) -> list[tuple[int, str, bytes]]:
        return [one for one in self.published if since < one[0] <= until and topics(one[1])]

    @property
    def asked(self) -> int:
        """Number of requests for records by the last read."""
        return int((re.findall(rb"cmdstat_xrange:calls=(\d+)", self.redis.command("INFO", "commandstats")) or [0])[0])

    @property
    def bytes_sent(self) -> int:
        """Number of bytes that Redis has sent since the start of the last read."""
        return int(re.findall(rb"total_net_output_bytes:(\d+)", self.redis.command("INFO", "stats"))[0])


@asynccontextmanager
async def a_log(redis: PrivateRedis) -> AsyncIterator[Log]:
    channel = f"reading{next(NUMBERS)}"
    broker = RedisBroker.from_url(BrokerURL.parse(redis.url + "?partitions=1&probe_s=10s&dead_s=20s"))
    await broker.start(node=b"12345678", layout=Layout(channel=channel, partitions=1), sink=IgnoringSink())  # type: ignore[arg-type]
    try:
        yield Log(redis, broker, channel)
    finally:
        await broker.stop(drain_s=0.1)


def shown(records: tuple[Record, ...]) -> list[tuple[int, str, bytes]]:
    return [(record.offset or 0, record.topic, record.payload) for record in records]


@pytest.mark.anyio
async def test_typical_read_needs_one_request(redis: PrivateRedis) -> None:
    async with a_log(redis) as log:
        await log.fill(["t", *["other"] * 500, *["t"] * 49])
        assert shown((await log.read(["t"])).records) == log.wanted("t".__eq__, 0, 10**6)
        assert log.asked == 1
        assert len((await log.read(["t"], since=501, limit=49)).records) == 49
        assert log.asked == 1


@pytest.mark.anyio
async def test_short_read_needs_one_request_per_topic(redis: PrivateRedis) -> None:
    async with a_log(redis) as log:
        await log.fill([f"t/{number}" for number in range(40)])
        assert len((await log.read()).records) == 40
        assert log.asked == 40


@pytest.mark.anyio
async def test_long_read_needs_few_requests(redis: PrivateRedis) -> None:
    async with a_log(redis) as log:
        await log.fill(["t"] * 5000)
        assert shown((await log.read(["t"], limit=5000)).records) == log.published
        assert log.asked <= 10


@pytest.mark.anyio
@pytest.mark.parametrize("topics", [["t"], [f"t/{number}" for number in range(100)]], ids=["one topic", "100 topics"])
@pytest.mark.parametrize("bound", [{"max_bytes": 100_000}, {"limit": 10}])
async def test_oversized_read_stops_after_one_step(
    redis: PrivateRedis, topics: list[str], bound: dict[str, int]
) -> None:
    async with a_log(redis) as log:
        for _ in range(500 // len(topics)):
            await log.fill(topics, b"x" * 10_000)  # 5 MB
        for wanted in (topics, None):
            assert await log.read(wanted, **bound) == ReadResult(gap=GapReason.TOO_MANY)
            assert log.bytes_sent < 100_000 + 64 * 11_000


@pytest.mark.anyio
async def test_steps_shrink_near_byte_limit(redis: PrivateRedis) -> None:
    async with a_log(redis) as log:
        await log.fill(["t"] * 300, b"x" * 10_000)
        assert await log.read(["t"], max_bytes=200 * 10_000) == ReadResult(gap=GapReason.TOO_MANY)
        assert log.bytes_sent < 210 * 10_100


@pytest.mark.anyio
async def test_read_limits_are_inclusive(redis: PrivateRedis) -> None:
    async with a_log(redis) as log:
        await log.fill(["a", "b", "c"] * 100, b"x" * 100)
        for topics in (["a", "b", "c"], None):
            assert shown((await log.read(topics, limit=300, max_bytes=30_000)).records) == log.published
            assert (await log.read(topics, limit=299)).gap == GapReason.TOO_MANY
            assert (await log.read(topics, max_bytes=29_999)).gap == GapReason.TOO_MANY


@pytest.mark.anyio
async def test_multi_step_read_is_exact(redis: PrivateRedis) -> None:
    chance = random.Random(7)
    names = [f"t/{number}" for number in range(150)]
    weights = [1 + (number % 10 == 0) * 30 for number in range(150)]
    async with a_log(redis) as log:
        for size in (0, 1, 1000, 3):
            await log.fill(chance.choices(names, weights, k=700), b"x" * size)
        for _ in range(30):
            since, until = sorted(chance.sample(range(2801), 2))
            some = set(chance.sample(names, chance.choice([1, 20, 150])))
            expected = log.wanted(some.__contains__, since, until)
            for topics in (some, some.__contains__):
                assert shown((await log.read(topics, since=since, until=until)).records) == expected


# -- changes between two steps


class Interrupted:
    """A connection that calls a function after the first records have arrived."""

    def __init__(self, commands: Commands, do: Callable[[], Awaitable[object]]) -> None:
        self._commands = commands
        self._do: Callable[[], Awaitable[object]] | None = do

    async def call(self, *command: Any) -> Any:
        answer = await self._commands.call(*command)
        if command[0] == "XRANGE" and (do := self._do) is not None:
            self._do = None
            await do()
        return answer


async def interrupted(log: Log, do: Callable[[], Awaitable[object]]) -> ReadResult:
    """Read the topic `t`, and call a function after the first step."""
    node = log.broker._node
    assert node is not None
    commands = Interrupted(node.commands(0), do)
    head = (await log.broker.heads([0]))[0]
    span = ReadSpan(
        partition=0, epoch=head.epoch, since=0, until=head.offset, topics=["t"], limit=10_000, max_bytes=2**30
    )
    return await Reader(node.names, lambda _: commands).read(span)  # type: ignore[arg-type, return-value]


@pytest.mark.anyio
async def test_trim_between_steps_is_gap(redis: PrivateRedis) -> None:
    async with a_log(redis) as log:
        await log.fill(["t"] * 200)
        short = History(size=20, ttl_s=600)
        assert await interrupted(log, lambda: log.fill(["t"], history=short)) == ReadResult(gap=GapReason.TRIMMED)


@pytest.mark.anyio
async def test_deleted_topic_between_steps_is_gap(redis: PrivateRedis) -> None:
    """Somebody deletes the key of a topic. Its last offset is kept elsewhere, so the loss is noticed."""
    async with a_log(redis) as log:

        async def delete() -> None:
            redis.command("DEL", log.base + "h:t")

        await log.fill(["t"] * 200)
        assert await interrupted(log, delete) == ReadResult(gap=GapReason.TRIMMED)
    async with a_log(redis) as log:
        await log.fill(["t"] * 200)

        async def begin_anew() -> None:
            redis.command("DEL", log.base + "h:t")
            await log.fill(["t"] * 200)

        assert await interrupted(log, begin_anew) == ReadResult(gap=GapReason.TRIMMED)


@pytest.mark.anyio
async def test_new_epoch_between_steps_is_gap(redis: PrivateRedis) -> None:
    async with a_log(redis) as log:
        await log.fill(["t"] * 200)

        async def wipe() -> None:
            redis.command("HSET", log.base + "m", "e", "another")

        assert await interrupted(log, wipe) == ReadResult(gap=GapReason.EPOCH)


@pytest.mark.anyio
async def test_publish_between_steps_is_not_returned(redis: PrivateRedis) -> None:
    async with a_log(redis) as log:
        await log.fill(["t"] * 200)
        before = list(log.published)
        result = await interrupted(log, lambda: log.fill(["t"] * 200))
        assert shown(result.records) == before


@pytest.mark.anyio
@pytest.mark.parametrize("fields", [("x", "y"), ("d", "x", "t", "soon", "n", "zz", "q", "1", "p", "0", "x", "1")])
async def test_malformed_entry_is_gap(redis: PrivateRedis, fields: tuple[str, ...]) -> None:
    """Another program has written to the stream of a topic."""
    async with a_log(redis) as log:
        await log.fill(["t"])
        redis.command("DEL", log.base + "h:t")
        redis.command("XADD", log.base + "h:t", "1-0", *fields)
        assert await log.read(["t"]) == ReadResult(gap=GapReason.UNREADABLE)
