"""Messages on the channels of a log, also malformed ones and those of other programs."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest
from dws_redis import RedisBroker
from dws_redis._format import read_push
from hypothesis import given
from hypothesis import strategies as st
from services.redis import PrivateRedis
from support.broker_load import IgnoringSink
from support.timeouts import HANG_S

from dws_core.plugin import BrokerURL, GapReason, Head, History, Layout, partition_of


class Gaps(IgnoringSink):
    """Collects the gaps of a node."""

    def __init__(self) -> None:
        self.found: list[tuple[int, GapReason, Head]] = []
        self.arrived = asyncio.Event()

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self.found.append((partition, reason, head))
        self.arrived.set()


@pytest.mark.anyio
async def test_malformed_push_is_gap(redis: PrivateRedis, caplog: pytest.LogCaptureFixture) -> None:
    """The gap keeps the position of the node. Malformed messages are logged once."""
    caplog.set_level(logging.WARNING)
    layout, sink = Layout(channel="malformed", partitions=1), Gaps()
    broker = RedisBroker.from_url(BrokerURL.parse(redis.url + "?partitions=1"))
    await broker.start(node=b"12345678", layout=layout, sink=sink)  # type: ignore[arg-type]
    try:
        await broker.set_interest(frozenset({0}))
        first = await broker.publish(0, "t", b"x", history=History())
        for _ in range(3):
            redis.command("PUBLISH", "dws:{0:malformed}:c", "- 0 0 0 00\n- 0 1 0 0 -14\n")
        second = await broker.publish(0, "t", b"x", history=History())
        async with asyncio.timeout(HANG_S):
            while len(sink.found) < 3:
                sink.arrived.clear()
                await sink.arrived.wait()
    finally:
        await broker.stop()
    assert {(partition, reason) for partition, reason, _ in sink.found} == {(0, GapReason.UNREADABLE)}
    assert all((head.epoch, head.offset) == (first.epoch, 1) for _, _, head in sink.found)
    assert second.offset == 2
    assert sum("is malformed" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.anyio
async def test_foreign_message_on_channel_is_ignored(redis: PrivateRedis) -> None:
    layout = Layout(channel="stranger", partitions=1)
    broker = RedisBroker.from_url(BrokerURL.parse(redis.url + "?partitions=1"))
    await broker.start(node=b"12345678", layout=layout, sink=IgnoringSink())  # type: ignore[arg-type]
    try:
        await broker.set_interest(frozenset({0}))
        redis.command("PUBLISH", "dws:{0:stranger}:c", "hello")
        receipt = await broker.publish(partition_of("t", layout), "t", b"x", history=History())
        assert receipt.offset == 1
    finally:
        await broker.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"e 0 1 2\n",
        b"e 0 1 2 zz\n",
        b"e 0 1 2 ab\n1 0 1 5 5 0\nshort",
        b"e x 1 2 ab\n",
        b"- 0 0 0 00\n- 0 1 0 0 -14\n",  # would be read again and again
        b"- 0 0 0 00\n- 0 1 -5 5 0\nshort",
        b"- 0 0 0 00\n- 0 1 +1 0 0\nt",
        b"- 0 0 0 00\n- 0 1 1_0 0 0\nt123456789",
        b"- 0 0 0 00\n- 0 1 99999999999999999999 0 0\nt",
        b"- 0 0 0 00\n- 0 " + b"9" * 5_000 + b" 1 0 0\nt",
        b"- 0 0 0 00\n- 0 1 1 0 0\n\xff",
        b"e 5 4 2 ab\n",
        b"e -1 4 2 ab\n",
        b"e 0 1 2 ab\n2 0 1 1 0 0\nt",
        b"e 3 4 2 ab\n3 0 1 1 0 0\nt",
        b"e 0 2 2 ab\n2 0 1 1 0 0\nt1 0 1 1 0 0\nt",
    ],
)
def test_invalid_push_is_rejected(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- the texts differ
        read_push(data)


@given(st.binary(max_size=60), st.integers(0, 60), st.binary(max_size=8))
def test_any_data_is_push_or_rejected(data: bytes, at: int, change: bytes) -> None:
    """Parsing always ends."""
    valid = b"ep 4 6 99 6162\n5 3 7 1 2 0\ntab- 0 8 1 1 1\ntck"
    for one in (data, valid[:at] + change + valid[at:], valid[:at] + change + valid[at + len(change) :]):
        with suppress(ValueError):
            read_push(one)


def test_push_is_parsed() -> None:
    push = read_push(b"ep 4 6 99 6162\n5 3 7 1 2 0\ntab- 0 8 1 1 1\ntck")
    assert (push.epoch, push.lo, push.hi) == ("ep", 4, 6)
    first, second = push.records
    assert (first.offset, first.prev, first.seq, first.topic, first.payload, first.key) == (5, 3, 7, "t", b"ab", None)
    assert (second.offset, second.prev, second.payload, second.key, second.publisher) == (None, None, b"c", "k", b"ab")
