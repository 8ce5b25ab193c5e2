"""A stream broker on a wire that fails on command, and a sink that keeps what it receives."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from support.streams import MemoryServer, MemoryWire

from dws_core._log.stream.io.clock import Clock
from dws_core.plugin import (
    BrokerURL,
    GapReason,
    Head,
    History,
    Layout,
    LogCapabilities,
    ReadSpan,
    Receipt,
    Record,
    Start,
    StreamBounds,
    StreamLogBroker,
    StreamSettings,
    StreamWire,
    WantedTopics,
    WireInfo,
)

HANG = "hang"
"""A trouble: the call does not return."""

LATER = "later"
"""A trouble of one append: it is stored and never confirmed."""


class VirtualClock(Clock):
    """The time of the running loop, and random numbers that are the same in each run."""

    def __init__(self) -> None:
        self.rng = random.Random(1)
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return 10**12 + int(asyncio.get_running_loop().time() * 1000) + self.ahead_ms

    def new_epoch(self) -> bytes:
        return self.rng.randbytes(8)


class Troubles:
    """The next results of a wire's methods, by their names: an exception, a delay, or `HANG`. All wires share them."""

    def __init__(self) -> None:
        self.next: defaultdict[str, list[Any]] = defaultdict(list)
        self.opened = 0

    async def meet(self, name: str) -> None:
        if not self.next[name]:
            return
        trouble = self.next[name].pop(0)
        if trouble == HANG:
            await asyncio.Event().wait()
        if isinstance(trouble, float):
            await asyncio.sleep(trouble)
        if isinstance(trouble, BaseException):
            raise trouble


class TroubledWire(MemoryWire):
    """A wire to a `MemoryServer`."""

    def __init__(
        self, server: MemoryServer, troubles: Troubles, *, quiet: bool = False, max_bytes: int = 10_000
    ) -> None:
        super().__init__(server, quiet=quiet)
        self.troubles = troubles
        self.max_bytes = max_bytes

    async def open(self, layout: Layout, *, append_timeout_s: float) -> WireInfo:
        await self.troubles.meet("open")
        await super().open(layout, append_timeout_s=append_timeout_s)
        self.troubles.opened += 1
        return WireInfo(max_bytes=self.max_bytes)

    async def close(self) -> None:
        await super().close()
        await self.troubles.meet("close")

    async def append(self, partition: int, data: bytes) -> int | None:
        if self.troubles.next["append"][:1] == [LATER]:
            self.troubles.next["append"][0] = HANG
            await super().append(partition, data)
        await self.troubles.meet("append")
        return await super().append(partition, data)

    async def bounds(self, partition: int) -> StreamBounds | None:
        await self.troubles.meet("bounds")
        return await super().bounds(partition)

    async def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        await self.troubles.meet("scan")
        async for item in super().scan(partition, start, stop):
            yield item
            await self.troubles.meet("scanned")

    async def follow(self, starts: Mapping[int, int | Start]) -> AsyncIterator[tuple[int, int, bytes]]:
        await self.troubles.meet("follow")
        async for item in super().follow(starts):
            await self.troubles.meet("followed")
            yield item


class ControlledWire(TroubledWire):
    """A wire with its own way for control messages."""

    def __init__(
        self, server: MemoryServer, troubles: Troubles, *, quiet: bool = False, max_bytes: int = 10_000
    ) -> None:
        super().__init__(server, troubles, quiet=quiet, max_bytes=max_bytes)
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()

    async def send_control(self, data: bytes) -> None:
        await self.troubles.meet("send_control")
        for wire in self.server.wires:
            wire.inbox.put_nowait(data)  # type: ignore[attr-defined]  # all wires of the test have one

    async def controls(self) -> AsyncIterator[bytes]:
        while (data := await self.inbox.get()) != b"end":
            yield data


class UnstoredWire(ControlledWire):
    """A wire to a server that cannot store, until `stores` is set."""

    stores: ClassVar[bool] = False

    async def open(self, layout: Layout, *, append_timeout_s: float) -> WireInfo:
        return replace(await super().open(layout, append_timeout_s=append_timeout_s), stores=self.stores)

    async def append(self, partition: int, data: bytes) -> int | None:
        assert self.stores, "the base class does not append"
        return await super().append(partition, data)

    def cut(self) -> None:
        super().cut()
        self.inbox.put_nowait(b"end")


class TroubledBroker(StreamLogBroker):
    """A broker on a `TroubledWire`."""

    capabilities: ClassVar[LogCapabilities] = LogCapabilities(max_payload_bytes=8000)
    wire_class: type[TroubledWire] = TroubledWire
    quiet = False

    def __init__(self, server: MemoryServer, troubles: Troubles) -> None:
        super().__init__(BrokerURL.parse("troubled://user:secret@host/x"))
        self._clock = VirtualClock()
        self.server = server
        self.troubles = troubles

    def wire(self) -> StreamWire:
        return self.wire_class(self.server, self.troubles, quiet=self.quiet)


class Sink:
    """Keeps what a node delivered."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.gaps: list[tuple[int, GapReason]] = []
        self.controls: list[tuple[bytes, bytes]] = []
        self.states: list[tuple[str, str]] = []
        self.news = asyncio.Event()
        self.fails = False

    @property
    def payloads(self) -> list[bytes]:
        return [record.payload for record in self.records]

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Sequence[Record]) -> None:
        if self.fails:
            raise RuntimeError("the sink fails")
        self.records += records

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self.gaps.append((partition, reason))

    def on_control(self, sender: bytes, payload: bytes) -> None:
        self.controls.append((sender, payload))

    def on_state(self, state: str, detail: str) -> None:
        self.states.append((state, detail))
        self.news.set()

    async def reports(self, state: str) -> str:
        """Wait for a state, and return its detail."""
        while not self.states or self.states[-1][0] != state:
            self.news.clear()
            await self.news.wait()
        return self.states[-1][1]


_NUMBERS = itertools.count()


class StreamDesk:
    """A broker, its server and its sink: `async with StreamDesk() as desk`."""

    def __init__(
        self,
        *,
        partitions: int = 1,
        quiet: bool = False,
        settings: StreamSettings | None = None,
        wire: type[TroubledWire] = TroubledWire,
        server: MemoryServer | None = None,
    ) -> None:
        self.server = server or MemoryServer()
        self.troubles = Troubles()
        self.sink = Sink()
        self.layout = Layout(channel="c", partitions=partitions)
        self.broker = TroubledBroker(self.server, self.troubles)
        self.broker.quiet, self.broker.wire_class = quiet, wire
        if settings is not None:
            self.broker.settings = settings

    async def start(self, node: bytes | None = None) -> None:
        await self.broker.start(node=node or b"n%07d" % next(_NUMBERS), layout=self.layout, sink=self.sink)
        await self.broker.set_interest(frozenset(range(self.layout.partitions)))

    async def __aenter__(self) -> StreamDesk:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.broker.stop()

    def publish(
        self,
        payload: bytes = b"x",
        *,
        topic: str = "t",
        key: str | None = None,
        deadline_s: float = 10.0,
        size: int = 100,
        order: str | None = None,
    ) -> asyncio.Future[Receipt]:
        history = History(size=size)
        return self.broker.publish(0, topic, payload, history=history, key=key, order=order, deadline_s=deadline_s)

    def span(self, since: int, until: int, *, topics: WantedTopics = ("t",), epoch: str | None = None) -> ReadSpan:
        return ReadSpan(
            partition=0,
            epoch=self.epoch if epoch is None else epoch,
            since=since,
            until=until,
            topics=topics,
            limit=100,
            max_bytes=100_000,
        )

    @property
    def epoch(self) -> str:
        node = self.broker._node
        assert node is not None
        assert node.logs[0].tail is not None
        return node.logs[0].tail.epoch

    async def cut(self) -> None:
        """Break the connection, and return when a new one is live."""
        self.server.cut()
        await self.sink.reports("degraded")
        await self.sink.reports("live")
