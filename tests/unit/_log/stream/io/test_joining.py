from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest
from support.stream_nodes import TroubledWire, Troubles, VirtualClock
from support.streams import MemoryServer
from support.virtual_time import virtual

from dws_core._log.records import Layout
from dws_core._log.stream.envelope import NO_EPOCH, Envelope, Kind, encode
from dws_core._log.stream.epochs import Claim
from dws_core._log.stream.io.host import Log
from dws_core._log.stream.io.joining import join, look_back
from dws_core._log.stream.io.scanning import Scanner
from dws_core._log.stream.lookback import LOOKBACK_MS
from dws_core._log.stream.partition_log import PartitionLog
from dws_core._log.stream.publishing import PublishQueue
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.wire import Start, WireLost

EPOCH = b"epoch..."
NOW = 10**9


def _envelope(kind: Kind = Kind.PROBE, *, time_ms: int = 1, epoch: bytes = NO_EPOCH, began: int = 0) -> bytes:
    return encode(Envelope(kind=kind, publisher=b"node-a..", time_ms=time_ms, epoch=epoch, began=began))


async def _wire(records: list[bytes], *, quiet: bool = False, first: int = 0) -> TroubledWire:
    wire = TroubledWire(MemoryServer(), Troubles(), quiet=quiet)
    await wire.open(Layout(channel="c"), append_timeout_s=1.0)
    wire.streams[0].replace(records, first)
    return wire


def _log() -> Log:
    return PartitionLog(0, b"node-me.", PublishQueue(StreamSettings()))


@pytest.mark.parametrize("quiet", [False, True])
@virtual
async def test_new_stream_is_read_from_its_start(quiet: bool) -> None:
    wire, log = await _wire([], quiet=quiet), _log()
    assert await join(wire, log, VirtualClock(), 1.0) is Start.FIRST
    assert log.tail is not None
    assert len(wire.streams[0].records) == 1


@pytest.mark.parametrize("quiet", [False, True])
@virtual
async def test_reconnect_resumes_at_the_last_envelope(quiet: bool) -> None:
    wire, log, clock = await _wire([b"unreadable", _envelope()], quiet=quiet), _log(), VirtualClock()
    await join(wire, log, clock, 1.0)
    for offset, data in enumerate(wire.streams[0].records):
        for event in log.feed(offset, data, lambda: EPOCH, NOW):
            if hasattr(event, "data"):
                wire.streams[0].append(event.data)
    assert log.is_live
    log.lost()
    assert await join(wire, log, clock, 1.0) == log.end


@virtual
async def test_follow_that_ends_is_lost() -> None:
    class Ending(TroubledWire):
        async def follow(self, starts: Mapping[int, int | Start]) -> AsyncIterator[tuple[int, int, bytes]]:
            yield 0, 0, _envelope()

    wire = Ending(MemoryServer(), Troubles(), quiet=True)
    await wire.open(Layout(channel="c"), append_timeout_s=1.0)
    with pytest.raises(WireLost, match="the stream ended"):
        await join(wire, _log(), VirtualClock(), 1.0)


def _old_stream(claim: bytes, began: int = 0, genesis: bytes | None = None) -> list[bytes]:
    """Return a stream whose first 300 envelopes are older than the window, and 100 newer ones."""
    old = [_envelope(time_ms=NOW - LOOKBACK_MS - 1, epoch=claim, began=began) for _ in range(300)]
    old[0] = genesis or _envelope(Kind.GENESIS, epoch=claim, time_ms=1)
    return [*old, *(_envelope(time_ms=NOW, epoch=claim) for _ in range(100))]


async def _look_back(records: list[bytes], first: int = 0) -> tuple[int | Start, Claim | None]:
    scanner = Scanner(await _wire(records, first=first), 0, 1.0)
    return await look_back(scanner, first + len(records) - 1, NOW)


@virtual
async def test_start_before_the_window_has_a_verified_claim() -> None:
    assert await _look_back(_old_stream(EPOCH)) == (399 - 64 - 128, Claim(EPOCH, 0))


@virtual
async def test_claim_whose_genesis_was_removed_is_trusted() -> None:
    assert await _look_back(_old_stream(EPOCH, began=3), first=1000) == (1399 - 64 - 128, Claim(EPOCH, 3))


@pytest.mark.parametrize(
    "records",
    [
        _old_stream(NO_EPOCH),
        _old_stream(EPOCH, genesis=_envelope()),
        _old_stream(EPOCH, genesis=_envelope(Kind.GENESIS, epoch=b"other...")),
        _old_stream(EPOCH, began=10**6),
        [_envelope(Kind.GENESIS, epoch=EPOCH, time_ms=1)] * 400,
    ],
    ids=["no claim", "no genesis there", "another genesis there", "impossible place", "a genesis is no claim"],
)
@virtual
async def test_claim_that_cannot_be_true_is_not_adopted(records: list[bytes]) -> None:
    """The node then reads the stream from its first record."""
    assert await _look_back(records) == (Start.FIRST, None)


@virtual
async def test_trimmed_window_begins_at_the_first_record() -> None:
    assert await _look_back([_envelope(time_ms=NOW)] * 10, first=1000) == (Start.FIRST, None)
