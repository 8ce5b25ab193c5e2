"""`SimulatedStream` and the wire to it: delays, lost replies, cuts, and servers that lose data. All from one seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from dws_core._log.stream.wire import (
    Start,
    StreamBounds,
    StreamWire,
    WireBlocked,
    WireInfo,
    WireLost,
    WireOutOfRange,
    WireRefused,
)
from dws_core.plugin import Layout

MAX_LATE_S = 3.4
"""How long after its call an append may still be stored. The base class assumes 30 s."""


SLOW_S = 0.8
"""Time between two envelopes that a slow tail receives: shorter than the silence after which a connection is dead."""


@dataclass
class SimulatedStream:
    """One append-only stream, and everything that was ever stored in it."""

    records: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    first: int = 0
    identity: int = 0
    ever: list[bytes] = field(default_factory=list)
    kept: list[tuple[int, bytes]] = field(default_factory=list)
    """What the stream contains, and what was removed from its beginning: offset and data."""

    @property
    def next(self) -> int:
        return self.first + len(self.records)

    def append(self, data: bytes) -> int:
        self.records.append(data)
        self.times.append(asyncio.get_running_loop().time())
        self.ever.append(data)
        self.kept.append((self.next - 1, data))
        return self.next - 1

    def trim(self, age_s: float) -> None:
        """Remove old records. A stream that had a record always keeps one."""
        oldest = asyncio.get_running_loop().time() - age_s
        drop = sum(time < oldest for time in self.times[:-1])
        self.records, self.times, self.first = self.records[drop:], self.times[drop:], self.first + drop

    def keep(self, count: int) -> None:
        """Remove the newest records."""
        self.kept = self.kept[: len(self.kept) - len(self.records) + count]
        self.records, self.times = self.records[:count], self.times[:count]


@dataclass
class Habits:
    """How this broker behaves when all is well.

    Attributes:
        offsets: Whether appends return offsets.
        bounds: Whether it reports bounds.
        identity: Whether its bounds have an identity.
        strict: Whether a start beyond the end raises `WireOutOfRange`. If False, it waits.
        controls: Whether control messages have their own way.
        latency_s: Maximum latency of one direction.
    """

    offsets: bool
    bounds: bool
    identity: bool
    strict: bool
    controls: bool
    latency_s: float


class SimulatedServer:
    """The broker. Methods with the names of faults are called by the world."""

    def __init__(self, rng: random.Random, habits: Habits, partitions: int) -> None:
        self.rng = rng
        self.habits = habits
        self.streams = [SimulatedStream() for _ in range(partitions)]
        self.wires: list[SimulatedWire] = []
        self.down = self.frozen = self.blocked = False
        self.handed: list[bytes] = []
        """Every envelope that may have left a wire."""
        self.moved = asyncio.Event()

    def notify(self) -> None:
        """Wake everybody that waits for a change."""
        self.moved.set()
        self.moved = asyncio.Event()

    def cut(self, node: int | None = None) -> None:
        for wire in list(self.wires):
            if node is None or wire.node == node:
                wire.cut()

    def set_back(self, count: int) -> None:
        for stream in self.streams:
            stream.keep(max(0, len(stream.records) - count))
        self.notify()

    def replace(self) -> None:
        for stream in self.streams:
            stream.keep(0)
            stream.kept.clear()
            stream.first, stream.identity = 0, stream.identity + 1
        self.notify()

    def trim(self, age_s: float) -> None:
        for stream in self.streams:
            stream.trim(age_s)

    def garbage(self) -> None:
        for stream in self.streams:
            stream.append(b"\x07 no envelope")
        self.notify()


@dataclass(eq=False)
class Pending:
    """An append on its way."""

    data: bytes
    answer: asyncio.Future[int | None]
    sent_at: float
    due: float
    dropped: bool = False


@dataclass
class Troubles:
    """What is about to happen to the appends of a node, and to what it receives."""

    lose_replies: int = 0
    lose_requests: int = 0
    unsent: int = 0
    refuse: int = 0
    silent: bool = False
    stalled_until: float = 0.0
    slow_until: float = 0.0


class SimulatedWire(StreamWire):
    """A connection of one node."""

    def __init__(self, server: SimulatedServer, node: int, troubles: Troubles) -> None:
        self.server = server
        self.node = node
        self.troubles = troubles
        self.is_cut = False
        self.deaf = False
        self.loop = asyncio.get_running_loop()
        self.pending: list[dict[Pending, None]] = [{} for _ in server.streams]
        self.busy_until = [0.0] * len(server.streams)
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()

    async def open(self, layout: Layout, *, append_timeout_s: float) -> WireInfo:
        self.append_timeout_s = append_timeout_s
        await self._pause()
        if self.server.down:
            raise WireLost("the server is down", sent=False)
        self.server.wires.append(self)
        return WireInfo(max_bytes=4000)

    async def close(self) -> None:
        if self in self.server.wires:
            self.server.wires.remove(self)
        self.cut()

    def cut(self) -> None:
        """Break the connection. Some appends on their way are stored nevertheless, in order, and perhaps much later."""
        if self.is_cut:
            return
        self.is_cut = True
        for partition, pending in enumerate(self.pending):
            keep = self.server.rng.randrange(len(pending) + 1)
            late = self.server.rng.choice((0.0, 0.0, 1.0)) * self.server.rng.random() * MAX_LATE_S
            for number, entry in enumerate(list(pending)):
                entry.dropped = number >= keep
                entry.due += late
                self.loop.call_at(entry.due, self._arrive, partition)
                if not entry.answer.done():
                    entry.answer.set_exception(WireLost("the connection was cut"))
                    entry.answer.exception()
        self.server.notify()

    async def append(self, partition: int, data: bytes) -> int | None:
        self._check()
        if self.server.blocked:
            raise WireBlocked("an alarm")
        troubles = self.troubles
        if troubles.unsent:
            troubles.unsent -= 1
            self.cut()
            raise WireLost("the connection was closed before", sent=False)
        self.server.handed.append(data)
        due = self.busy_until[partition] = max(self.busy_until[partition], self._at(self._latency()))
        entry = Pending(data, self.loop.create_future(), self.loop.time(), due)
        self.pending[partition][entry] = None
        self.loop.call_at(due, self._arrive, partition)
        try:
            async with asyncio.timeout(self.append_timeout_s):
                return await entry.answer
        except TimeoutError:
            self.cut()
            raise WireLost("no confirmation") from None

    def _arrive(self, partition: int) -> None:
        """Let everything arrive that is due, in the order in which it was sent."""
        pending = self.pending[partition]
        while pending and (entry := next(iter(pending))).due <= self.loop.time():
            if self.server.frozen or self.server.down or self._stalled():
                self.loop.call_later(0.05, self._arrive, partition)
                return
            del pending[entry]
            if not entry.dropped and self.loop.time() <= entry.sent_at + MAX_LATE_S:
                self._take(partition, entry)

    def _take(self, partition: int, entry: Pending) -> None:
        troubles = self.troubles
        if troubles.refuse and not self.is_cut:
            troubles.refuse -= 1
            self.loop.call_later(self._latency(), self._reply, entry, WireRefused("too large"))
            return
        if troubles.lose_requests and not self.is_cut:
            troubles.lose_requests -= 1
            self._drop_later(partition)
            return
        offset = self.server.streams[partition].append(entry.data)
        self.server.notify()
        if troubles.lose_replies and not self.is_cut:
            troubles.lose_replies -= 1
            return  # the wire's own deadline ends it
        self.loop.call_later(self._latency(), self._reply, entry, offset if self.server.habits.offsets else None)

    def _drop_later(self, partition: int) -> None:
        """Keep the prefix rule: nothing that was sent after a lost request is stored."""
        for entry in self.pending[partition]:
            entry.dropped = True
        self.cut()

    def _reply(self, entry: Pending, answer: int | Exception | None) -> None:
        if entry.answer.done():
            return
        if isinstance(answer, Exception):
            entry.answer.set_exception(answer)
        else:
            entry.answer.set_result(answer)

    async def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        await self._pause()
        stream = self.server.streams[partition]
        for offset in range(start, stop + 1):
            if not stream.first <= offset < stream.next:
                raise WireOutOfRange(partition, offset)
            yield offset, stream.records[offset - stream.first]
            if offset % 16 == 0:
                await self._pause()

    async def follow(self, starts: Mapping[int, int | Start]) -> AsyncIterator[tuple[int, int, bytes]]:
        await self._pause()
        places = {p: self._place(p, start) for p, start in starts.items()}
        while True:
            moved = self.server.moved
            for partition in places:
                while (item := self._next(partition, places)) is not None:
                    yield partition, *item
                    if self.server.rng.random() < 0.3:
                        await self._pause()
                    if self.loop.time() < self.troubles.slow_until:
                        await asyncio.sleep(SLOW_S)
            if self.server.moved is moved:
                await moved.wait()
            await self._pause()

    def _place(self, partition: int, start: int | Start) -> int:
        stream = self.server.streams[partition]
        if start is Start.FIRST:
            return stream.first
        if start is Start.LAST:
            return max(stream.first, stream.next - self.server.rng.randrange(1, 5))
        if self.server.habits.strict and not stream.first <= start <= stream.next:
            raise WireOutOfRange(partition, start)
        return max(start, stream.first)

    def _next(self, partition: int, places: dict[int, int]) -> tuple[int, bytes] | None:
        stream, place = self.server.streams[partition], places[partition]
        if self.troubles.silent:
            self.troubles.silent, self.deaf = False, True
        if self.deaf or self.server.frozen or self._stalled():
            return None
        if place < stream.first or (self.server.habits.strict and place > stream.next):
            if self.server.habits.strict:
                raise WireOutOfRange(partition, place)
            places[partition] = place = stream.first
        if place >= stream.next:
            return None
        places[partition] = place + 1
        return place, stream.records[place - stream.first]

    async def bounds(self, partition: int) -> StreamBounds | None:
        await self._pause()
        stream, habits = self.server.streams[partition], self.server.habits
        if not habits.bounds:
            return None
        identity = str(stream.identity) if habits.identity else None
        return StreamBounds(first=stream.first, next=stream.next, identity=identity)

    # -- time

    def _latency(self) -> float:
        return self.server.rng.random() * self.server.habits.latency_s

    def _at(self, delay_s: float) -> float:
        return self.loop.time() + delay_s

    def _stalled(self) -> bool:
        return self.loop.time() < self.troubles.stalled_until

    async def _pause(self) -> None:
        """Wait for the other side. The connection may be lost here."""
        await asyncio.sleep(self._latency())
        while (self.server.frozen or self._stalled()) and not self.is_cut:
            await asyncio.sleep(0.05)
        self._check()

    def _check(self) -> None:
        if self.is_cut:
            raise WireLost("the connection was cut", sent=False)


class ControlWire(SimulatedWire):
    """A wire with its own way for control messages. It loses some of them and repeats some."""

    async def send_control(self, data: bytes) -> None:
        self.server.handed.append(data[4:])  # without the number of the partition
        await self._pause()
        for wire in self.server.wires:
            for _ in range(self.server.rng.choice((0, 1, 1, 2))):
                if isinstance(wire, ControlWire):
                    wire.inbox.put_nowait(data)

    async def controls(self) -> AsyncIterator[bytes]:
        while True:
            yield await self.inbox.get()
