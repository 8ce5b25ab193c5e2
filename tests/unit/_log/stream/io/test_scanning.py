from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.stream_nodes import HANG, TroubledWire, Troubles
from support.streams import MemoryServer
from support.virtual_time import virtual

from dws_core._log.records import Layout
from dws_core._log.stream.envelope import Envelope, Kind, encode
from dws_core._log.stream.io.scanning import Scanner, closing
from dws_core._log.stream.wire import WireLost, WireOutOfRange


def _probe(number: int) -> bytes:
    return encode(Envelope(kind=Kind.PROBE, publisher=b"node-a..", time_ms=1, first=number))


async def _wire(*records: bytes, first: int = 0) -> TroubledWire:
    wire = TroubledWire(MemoryServer(), Troubles())
    await wire.open(Layout(channel="c"), append_timeout_s=1.0)
    wire.streams[0].replace(list(records), first)
    return wire


async def _scan(wire: TroubledWire, start: int, stop: int) -> list[tuple[int, bytes]]:
    async with closing(Scanner(wire, 0, 1.0).scan(start, stop)) as records:
        return [item async for item in records]


@virtual
async def test_scan_returns_both_ends() -> None:
    assert await _scan(await _wire(b"a", b"b", b"c"), 0, 1) == [(0, b"a"), (1, b"b")]


@virtual
async def test_scan_without_progress_is_lost() -> None:
    for name in ("scan", "scanned"):
        wire = await _wire(b"a", b"b")
        wire.troubles.next[name].append(HANG)
        with pytest.raises(WireLost, match="no progress"):
            await _scan(wire, 0, 1)


@virtual
async def test_scan_passes_errors_of_the_wire() -> None:
    with pytest.raises(WireOutOfRange):
        await _scan(await _wire(b"a"), 5, 6)


@virtual
async def test_long_scan_lets_others_continue() -> None:
    wire, turns = await _wire(*[b"x"] * 1000), 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.get_running_loop().create_task(count_turns())
    assert len(await _scan(wire, 0, 999)) == 1000
    counting.cancel()
    assert turns >= 15


@virtual
async def test_sample_is_the_first_readable_envelope() -> None:
    scanner = Scanner(await _wire(b"garbage", _probe(7), _probe(8)), 0, 1.0)
    found = await scanner.sample(0, 2)
    assert found is not None
    assert found.first == 7
    assert await scanner.sample(0, 0) is None, "nothing can be read there"
    assert await scanner.sample(5, 6) is None, "nothing is stored there"


@pytest.mark.parametrize(("first", "origin"), [(0, 0), (1, 1), (2, None)])
@virtual
async def test_origin_is_the_first_offset_ever(first: int, origin: int | None) -> None:
    wire = await _wire(b"a", b"b", first=first)
    assert await Scanner(wire, 0, 1.0).origin(first + 1) == origin


@virtual
async def test_origin_of_broker_that_skips_removed_records() -> None:
    """Its scan begins with the next record instead of an error, as in a hole."""

    class Skipping(TroubledWire):
        async def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
            yield max(start, 5), b"a"

    assert await Scanner(Skipping(MemoryServer(), Troubles()), 0, 1.0).origin(9) is None


@virtual
async def test_origin_of_empty_scan_is_unknown() -> None:
    class Empty(TroubledWire):
        async def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
            for item in ():
                yield item

    assert await Scanner(Empty(MemoryServer(), Troubles()), 0, 1.0).origin(9) is None


@virtual
async def test_iterator_without_close_is_accepted() -> None:
    """A wire may return any asynchronous iterator, not only a generator."""

    class Once:
        left = 1

        def __aiter__(self) -> Once:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return 7

    async with closing(Once()) as items:
        assert [item async for item in items] == [7]


@virtual
async def test_generator_is_closed_when_the_reader_stops() -> None:
    closed: list[bool] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async with closing(numbers()) as items:
        async for _ in items:
            break
    assert closed == [True]
