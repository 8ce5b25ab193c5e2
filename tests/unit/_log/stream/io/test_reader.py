from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.stream_nodes import StreamDesk, TroubledWire, Troubles
from support.streams import MemoryServer
from support.virtual_time import virtual

from dws_core._log.records import GapReason, Layout, ReadSpan
from dws_core._log.stream.envelope import Draft, Envelope, Kind, encode
from dws_core._log.stream.epochs import Claim
from dws_core._log.stream.index import TopicIndex
from dws_core._log.stream.io.reader import Reader
from dws_core._log.stream.io.scanning import Scanner
from dws_core._log.stream.tail import INDEX_BITS, StreamTail
from dws_core._log.stream.wire import WireLost

NOW = 10**9
EPOCH = Claim(b"epoch...", 0)


def _records(number: int, *payloads: bytes, key: str | None = None, time_ms: int = NOW) -> bytes:
    drafts = [Draft("t", payload, 10_000, 10**9, key) for payload in payloads]
    return encode(
        Envelope(
            kind=Kind.RECORDS, publisher=b"node-a..", time_ms=time_ms, epoch=EPOCH.epoch, first=number, drafts=drafts
        )
    )


class Past:
    """A stream, a tail that has read it, and a reader."""

    def __init__(self, *records: bytes, first: int = 0, wire: type[TroubledWire] = TroubledWire) -> None:
        self.wire = wire(MemoryServer(), Troubles())
        self.records = list(records)
        self.first = first
        self.tail = StreamTail(0, b"node-me.", EPOCH, max_skip=0)

    async def read(self, since: int, until: int = 2**40, *, from_index: bool = False, limit: int = 100) -> object:
        await self.wire.open(Layout(channel="c"), append_timeout_s=1.0)
        self.wire.streams[0].replace(self.records, self.first)
        for offset, data in enumerate(self.records, self.first):
            self.tail.feed(offset, data)
        if not from_index:
            self.tail.index = TopicIndex(self.tail.mark)
        return await self.read_again(since, until, limit=limit)

    async def read_again(self, since: int, until: int = 2**40, *, limit: int = 100) -> object:
        reader = Reader(Scanner(self.wire, 0, 1.0), self.tail, NOW, asyncio.Lock())
        result = await reader.read(_span(since, until, limit))
        return result.gap or [record.payload for record in result.records]


def _span(since: int, until: int, limit: int = 100) -> ReadSpan:
    return ReadSpan(partition=0, epoch=EPOCH.text, since=since, until=until, topics=["t"], limit=limit, max_bytes=1000)


def _place(offset: int) -> int:
    return offset << INDEX_BITS


FOUR = [_records(1, b"a"), _records(2, b"b"), _records(3, b"c"), _records(4, b"d")]


@pytest.mark.parametrize("from_index", [True, False])
@virtual
async def test_read_returns_the_span(from_index: bool) -> None:
    assert await Past(*FOUR).read(_place(0), _place(2), from_index=from_index) == [b"b", b"c"]
    assert await Past(*FOUR).read(_place(3), from_index=from_index) == []
    assert await Past(*FOUR).read(_place(2), 2**50, from_index=from_index) == [b"d"], "up to the end of the tail"


@pytest.mark.parametrize("from_index", [True, False])
@virtual
async def test_read_over_the_limit_is_too_many(from_index: bool) -> None:
    assert await Past(*FOUR).read(_place(0), from_index=from_index, limit=2) is GapReason.TOO_MANY


@pytest.mark.parametrize("first", [0, 1])
@virtual
async def test_read_from_position_zero_needs_the_whole_stream(first: int) -> None:
    """Every stream begins with the probe of its first node."""
    probe = encode(Envelope(kind=Kind.PROBE, publisher=b"node-a..", time_ms=NOW))
    assert await Past(probe, *FOUR, first=first).read(0) == [b"a", b"b", b"c", b"d"]
    assert await Past(*FOUR, first=2).read(0) is GapReason.TRIMMED


@virtual
async def test_read_knows_originals_before_its_start() -> None:
    """The repeat of a key is not a record, although its original is before the position of the reader."""
    records = [_records(number, b"%d" % number) for number in range(1, 201)]
    records[100] = _records(101, b"original", key="k")
    records += [_records(201, b"repeat", key="k"), _records(202, b"d")]
    assert await Past(*records).read(_place(199)) == [b"d"]


@virtual
async def test_read_after_removed_records_is_trimmed() -> None:
    assert await Past(*FOUR, first=100).read(_place(50)) is GapReason.TRIMMED
    assert await Past(*FOUR, first=100).read(_place(101)) is GapReason.TRIMMED, "one window before it was removed"


@virtual
async def test_long_stream_is_not_read_from_its_start() -> None:
    old = [_records(number, b"old", time_ms=1) for number in range(1, 301)]
    old[0] = encode(Envelope(kind=Kind.GENESIS, publisher=b"node-a..", time_ms=1, epoch=EPOCH.epoch))
    new = [_records(number, b"%d" % number) for number in range(301, 401)]
    past = Past(*old, *new)
    asked: list[int] = []
    scan = past.wire.scan
    past.wire.scan = lambda p, start, stop: asked.append(start) or scan(p, start, stop)  # type: ignore[func-returns-value,method-assign]
    assert await past.read(_place(397)) == [b"399", b"400"]
    assert 0 in asked, "the genesis is verified"
    assert min(start for start in asked if start) > 100


def _counted(past: Past) -> list[int]:
    """Note the offsets that are scanned from now on."""
    scanned: list[int] = []
    scan = past.wire.scan

    async def counting(partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        async for offset, data in scan(partition, start, stop):
            scanned.append(offset)
            yield offset, data

    past.wire.scan = counting  # type: ignore[method-assign]
    return scanned


@virtual
async def test_past_is_scanned_once_for_all_reads() -> None:
    past = Past(*(_records(number, b"%d" % number) for number in range(1, 301)))
    scanned = _counted(past)
    assert await past.read(_place(298)) == [b"300"]
    assert await past.read_again(0, _place(1)) == [b"2"]
    assert len(scanned) > 300
    scanned.clear()
    for since in (0, 1, 100, 297):
        assert await past.read_again(_place(since), _place(since + 1)) == [b"%d" % (since + 2)]
    assert scanned == [1, 2, 101, 298]


@virtual
async def test_reads_that_wait_share_one_scan() -> None:
    past = Past(*(_records(number, b"%d" % number) for number in range(1, 301)))
    await past.read(_place(299))
    past.tail.index = TopicIndex(past.tail.mark)
    scanned, turn = _counted(past), asyncio.Lock()
    readers = [Reader(Scanner(past.wire, 0, 1.0), past.tail, NOW, turn) for _ in range(5)]
    results = await asyncio.gather(*(reader.read(_span(_place(n), _place(n + 1))) for n, reader in enumerate(readers)))
    assert [record.payload for result in results for record in result.records] == [b"2", b"3", b"4", b"5", b"6"]
    assert scanned.count(250) == 1


@virtual
async def test_read_reaches_limited_number_of_envelopes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer places can be read."""
    monkeypatch.setattr("dws_core._log.stream.io.reader._REACH", 100)
    past = Past(*(_records(number, b"%d" % number) for number in range(1, 301)))
    scanned = _counted(past)
    assert await past.read(_place(150)) is GapReason.TOO_MANY
    assert len(scanned) > 100
    scanned.clear()
    assert await past.read_again(_place(198)) is GapReason.TOO_MANY
    assert await past.read_again(_place(298)) == [b"300"]
    assert await past.read_again(_place(199), _place(200)) == [b"201"]
    assert scanned == [299, 200]


@virtual
async def test_large_past_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dws_core._log.stream.io.reader._EXTEND_BYTES", 300_000)
    envelopes = [_records(number, b"x" * 900, time_ms=NOW - 10**6 + number * 1000) for number in range(1, 1001)]
    envelopes[0] = encode(Envelope(kind=Kind.GENESIS, publisher=b"node-a..", time_ms=1, epoch=EPOCH.epoch))
    past = Past(*envelopes)
    assert await past.read(_place(998)) == [b"x" * 900]
    assert await past.read_again(_place(700)) is GapReason.TOO_MANY
    scanned = _counted(past)
    assert await past.read_again(_place(998)) == [b"x" * 900]
    assert await past.read_again(_place(1)) is GapReason.TOO_MANY
    assert await past.read_again(_place(699)) is GapReason.TOO_MANY
    assert scanned == [999], "it is tried once only"


@virtual
async def test_beginning_of_trimmed_stream_is_found() -> None:
    """The index reaches back to about where the stored records begin, and later reads do not look for it again."""
    envelopes = [_records(number, b"%d" % number, time_ms=NOW - 1_000_000 + number * 1000) for number in range(1, 1001)]
    past = Past(*envelopes, first=5000)
    assert await past.read(0) is GapReason.TRIMMED
    begins = past.tail.index.lo >> INDEX_BITS
    assert 5090 <= begins <= 5090 + 2 * 64, "the stored records, without the first window"
    scanned = _counted(past)
    assert await past.read_again(0) is GapReason.TRIMMED
    assert await past.read_again(_place(begins - 1)) is GapReason.TRIMMED
    assert scanned == []
    assert await past.read_again(_place(begins + 1), _place(begins + 2)) == [b"%d" % (begins + 2 - 5000 + 1)]


@virtual
async def test_unreadable_envelope_ends_the_past() -> None:
    past = Past(_records(1, b"a"), b"garbage", _records(2, b"b"), _records(3, b"c"))
    await past.read(_place(3), from_index=True)
    past.tail.index = TopicIndex(past.tail.mark)
    assert await past.read_again(0) is GapReason.TRIMMED
    assert await past.read_again(_place(1)) == [b"b", b"c"]


@virtual
async def test_changed_stream_is_no_answer() -> None:
    """The tail saw other records than those that the scan returns."""
    past = Past(*FOUR)
    await past.read(_place(3), from_index=True)
    past.wire.streams[0].replace([b"garbage"] * 4)
    with pytest.raises(WireLost, match="the stream has changed"):
        await past.read_again(_place(0), _place(3))


@virtual
async def test_scan_that_ends_early_is_no_answer() -> None:
    class Short(TroubledWire):
        async def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
            async for offset, data in super().scan(partition, start, stop):
                if offset < 3:
                    yield offset, data

    with pytest.raises(WireLost, match="ended too early"):
        await Past(*FOUR, wire=Short).read(_place(1))


@virtual
async def test_read_through_a_broker_is_complete() -> None:
    async with StreamDesk() as desk:
        receipts = [await desk.publish(b"%d" % number) for number in range(5)]
        places = [receipt.offset or 0 for receipt in receipts]
        result = await desk.broker.read(desk.span(places[1], places[3]))
        assert [record.payload for record in result.records] == [b"2", b"3"]
