"""Streams in memory, the wire to them, and a broker on this wire."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from dws_core.plugin import (
    BrokerURL,
    Layout,
    LayoutMismatch,
    LogCapabilities,
    Start,
    StreamBounds,
    StreamLogBroker,
    StreamSettings,
    StreamWire,
    WireInfo,
    WireLost,
    WireOutOfRange,
)


@dataclass
class MemoryStream:
    """One append-only stream.

    Attributes:
        records: What is stored, oldest first.
        first: Offset of the oldest record.
        identity: Changes when the stream is replaced.
    """

    records: list[bytes] = field(default_factory=list)
    first: int = 0
    identity: str = field(default_factory=lambda: secrets.token_hex(4))
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def next(self) -> int:
        """Offset that the next record receives."""
        return self.first + len(self.records)

    def append(self, data: bytes) -> int:
        self.records.append(data)
        self.wake()
        return self.next - 1

    def wake(self) -> None:
        """Wake all followers."""
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            future.get_loop().call_soon_threadsafe(_resolve, future)  # a node may have its own thread

    def start(self, start: int | Start) -> int:
        """Return the offset of a start."""
        if start is Start.FIRST:
            return self.first
        if start is Start.LAST:
            return max(self.first, self.next - 5)  # like a broker that only knows its last chunk
        return start

    def replace(self, records: list[bytes], first: int = 0) -> None:
        """Become another stream."""
        self.records, self.first, self.identity = records, first, secrets.token_hex(4)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@dataclass
class MemoryServer:
    """Channels of streams, and their wires.

    Attributes:
        channels: The streams of each channel.
        wires: The open connections.
        up: Whether connections can be opened.
        running: Cleared while the server is frozen.
        received: What has arrived while it was frozen.
        copies: The streams at the time of the snapshot.
    """

    channels: dict[str, list[MemoryStream]] = field(default_factory=dict)
    wires: set[MemoryWire] = field(default_factory=set)
    up: bool = True
    running: asyncio.Event = field(default_factory=asyncio.Event)
    received: list[tuple[MemoryStream, bytes]] = field(default_factory=list)
    copies: list[tuple[MemoryStream, list[bytes], int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.running.set()

    def freeze(self) -> None:
        """Reply to nothing, and store nothing."""
        self.running.clear()

    def thaw(self) -> None:
        """Store what arrived, also from connections that ended in the meantime, and continue."""
        received, self.received = self.received, []
        for stream, data in received:
            stream.append(data)
        self.running.set()

    def snapshot(self) -> None:
        """Copy the streams."""
        self.copies = [(s, s.records.copy(), s.first) for streams in self.channels.values() for s in streams]

    def set_back(self) -> None:
        """Return to the copies. The streams keep their identities."""
        for stream, records, first in self.copies:
            stream.records, stream.first = records.copy(), first
        self.cut()

    def streams(self, layout: Layout) -> list[MemoryStream]:
        found = self.channels.setdefault(layout.channel, [MemoryStream() for _ in range(layout.partitions)])
        if len(found) != layout.partitions:
            raise LayoutMismatch(f"the channel has {len(found)} partitions.", fix="use the same layout")
        return found

    def cut(self) -> None:
        """Break all connections."""
        for wire in list(self.wires):
            wire.cut()

    def wipe(self) -> None:
        for stream in (stream for streams in self.channels.values() for stream in streams):
            stream.replace([])
        self.cut()


class MemoryWire(StreamWire):
    """A connection to a `MemoryServer`.

    Args:
        server: The server.
        quiet: Whether the broker reports neither bounds nor offsets, like RabbitMQ.
    """

    def __init__(self, server: MemoryServer, *, quiet: bool = False) -> None:
        self.server = server
        self.quiet = quiet
        self.streams: list[MemoryStream] = []
        self.is_cut = False

    async def open(self, layout: Layout, *, append_timeout_s: float) -> WireInfo:
        await self.server.running.wait()
        if not self.server.up:
            raise WireLost("the server is down")
        self.streams = self.server.streams(layout)
        self.server.wires.add(self)
        return WireInfo(max_bytes=2_000_000)

    async def close(self) -> None:
        self.server.wires.discard(self)
        self.cut()

    def cut(self) -> None:
        self.is_cut = True
        for stream in self.streams:
            stream.wake()

    async def append(self, partition: int, data: bytes) -> int | None:
        stream = self.streams[partition]
        if not self.server.running.is_set():
            self.server.received.append((stream, data))
            await self.server.running.wait()
            raise WireLost("the reply came too late", sent=True)
        await self._reach()
        offset = stream.append(data)
        await asyncio.sleep(0)  # the reply is on its way, and may be lost with the connection
        if self.is_cut:
            raise WireLost("the connection was cut before the reply", sent=True)
        return None if self.quiet else offset

    async def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        await self._reach()
        stream = self.streams[partition]
        for offset in range(start, stop + 1):
            if not stream.first <= offset < stream.next:
                raise WireOutOfRange(partition, offset)
            yield offset, stream.records[offset - stream.first]

    async def follow(self, starts: Mapping[int, int | Start]) -> AsyncIterator[tuple[int, int, bytes]]:
        await self._reach()
        places = {partition: self.streams[partition].start(start) for partition, start in starts.items()}
        while True:
            for partition, start in places.items():
                stream, place = self.streams[partition], start
                while place < stream.next:
                    if place < stream.first:
                        raise WireOutOfRange(partition, place)
                    yield partition, place, stream.records[place - stream.first]
                    place += 1
                places[partition] = place
            await self._news(places)

    async def bounds(self, partition: int) -> StreamBounds | None:
        await self._reach()
        stream = self.streams[partition]
        return None if self.quiet else StreamBounds(first=stream.first, next=stream.next, identity=stream.identity)

    async def _reach(self) -> None:
        if not self.server.running.is_set():
            await self.server.running.wait()
        if self.is_cut or not self.server.up:
            raise WireLost("the connection was cut")

    async def _news(self, places: Mapping[int, int]) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for partition in places:
            self.streams[partition].waiting.append(future)
        if not any(self.streams[p].next > place for p, place in places.items()):
            await future
        await self._reach()


class MemoryStreamBroker(StreamLogBroker):
    """A broker whose streams are in this process. `memstream://NAME` names a server."""

    capabilities: ClassVar[LogCapabilities] = LogCapabilities(durable="none", cross_process=False)
    settings = StreamSettings(append_timeout_s=1.0, probe_s=0.2, dead_s=1.0)
    servers: ClassVar[dict[str, MemoryServer]] = {}
    quiet: ClassVar[bool] = False

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        return cls(url)

    @property
    def server(self) -> MemoryServer:
        return self.servers.setdefault(self.url.name, MemoryServer())

    def wire(self) -> StreamWire:
        return MemoryWire(self.server, quiet=self.quiet)


class QuietStreamBroker(MemoryStreamBroker):
    """A broker that reports neither bounds nor offsets."""

    quiet: ClassVar[bool] = True


class LaneWire(MemoryWire):
    """A quiet wire that can also send to all nodes without storing."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server, quiet=True)
        self.arrived: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def send_control(self, data: bytes) -> None:
        await self._reach()
        for wire in self.server.wires:
            if isinstance(wire, LaneWire) and wire.streams is self.streams:
                wire.arrived.put_nowait(data)

    async def controls(self) -> AsyncIterator[bytes]:
        while (data := await self.arrived.get()) is not None:
            yield data

    def cut(self) -> None:
        super().cut()
        self.arrived.put_nowait(None)


class LaneStreamBroker(MemoryStreamBroker):
    """A broker whose messages without history do not pass through the streams."""

    def wire(self) -> StreamWire:
        return LaneWire(self.server)
