from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from dws_core._log.records import Layout
from dws_core._log.stream.wire import Start, StreamWire, WireInfo, WireLost, WireOutOfRange


class _SmallestWire(StreamWire):
    """Only the methods that every wire has."""

    async def open(self, layout: Layout, *, append_timeout_s: float) -> WireInfo:
        return WireInfo()

    async def close(self) -> None: ...

    async def append(self, partition: int, data: bytes) -> int | None:
        return None

    async def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        yield 0, b""

    async def follow(self, starts: Mapping[int, int | Start]) -> AsyncIterator[tuple[int, int, bytes]]:
        yield 0, 0, b""


async def test_optional_methods_have_defaults() -> None:
    wire = _SmallestWire()
    assert await wire.bounds(0) is None
    with pytest.raises(NotImplementedError):
        await wire.send_control(b"")
    with pytest.raises(NotImplementedError):
        await anext(wire.controls())


def test_errors_carry_their_facts() -> None:
    assert WireLost("cut").sent, "without a proof, the envelope may be stored"
    assert not WireLost("cut", sent=False).sent
    error = WireOutOfRange(3, 17)
    assert (error.partition, error.start, error.reason) == (3, 17, "partition 3 has no offset 17")
