"""A node finds its place in a stream to which others append at the same time."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from support.streams import MemoryServer, MemoryStream, MemoryWire
from support.timeouts import HANG_S

from dws_core.plugin import BrokerURL, Layout, LogCapabilities, Start, StreamLogBroker, StreamWire
from dws_core.testing.suites.recording_sink import RecordingSink


class _Stream(MemoryStream):
    """A stream whose last record is its last chunk."""

    def start(self, start: int | Start) -> int:
        return self.next - 1 if start is Start.LAST else super().start(start)


class BusyWire(MemoryWire):
    """A wire of a stream to which another node appends directly after this one."""

    async def append(self, partition: int, data: bytes) -> int | None:
        await super().append(partition, data)
        if len(self.streams[partition].records) < 10:
            self.streams[partition].append(b"not readable")
        return None


class BusyBroker(StreamLogBroker):
    capabilities: ClassVar[LogCapabilities] = LogCapabilities(durable="none", cross_process=False)

    def wire(self) -> StreamWire:
        return BusyWire(MemoryServer({"c": [_Stream()]}), quiet=True)


async def test_node_starts_although_end_is_after_its_probe() -> None:
    broker = BusyBroker(BrokerURL.parse("busy://"))
    async with asyncio.timeout(HANG_S):
        await broker.start(node=b"publishe", layout=Layout(channel="c"), sink=RecordingSink())
    await broker.stop()
