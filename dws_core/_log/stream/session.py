"""One wire, from `open` to its first failure. All tasks of a session end with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from dws_core._log.records import Layout
from dws_core._log.stream.envelope import Envelope, Kind, UnreadableEnvelope, decode
from dws_core._log.stream.epochs import Claim
from dws_core._log.stream.lookback import Lookback
from dws_core._log.stream.partition_log import Live, PartitionEvent, PartitionLog, Propose
from dws_core._log.stream.publishing import Flight
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.tail import Moved
from dws_core._log.stream.wire import (
    Start,
    StreamWire,
    WireBlocked,
    WireError,
    WireInfo,
    WireLost,
    WireOutOfRange,
    WireRefused,
)
from dws_core._log.watchdog import Watchdog

logger = logging.getLogger("dws.stream")

T = TypeVar("T")
Ticket: TypeAlias = tuple["asyncio.Future[Any]", str]
Log: TypeAlias = PartitionLog[Ticket]

_CLOSE_S: Final = 1.0
_BREATH: Final = 64
"""Number of envelopes after which a tail that has more to read lets other tasks run."""


class Host(Protocol):
    """What a session needs of its node."""

    settings: StreamSettings
    layout: Layout
    logs: list[Log]

    def on_events(self, log: Log, events: list[PartitionEvent]) -> None:
        """Handle the events of a partition that do not need the wire."""

    def on_control(self, data: bytes) -> None:
        """Deliver a control message that came through `StreamWire.controls`."""

    def on_open(self, info: WireInfo) -> None:
        """Note the limits of the streams."""

    def on_outcomes(self, outcomes: list[tuple[Ticket, Any]]) -> None:
        """Complete publishes."""

    def on_blocked(self, reason: str | None) -> None:
        """Note that the broker accepts nothing, or, with None, that it accepts appends again."""

    def now_ms(self) -> int:
        """Return the time, in milliseconds since the Unix epoch."""

    def new_epoch(self) -> bytes:
        """Return 8 random bytes."""


class Session:
    """A wire in use.

    Args:
        host: The node.
        wire: A new wire.
    """

    def __init__(self, host: Host, wire: StreamWire) -> None:
        self.wire = wire
        self._host = host
        self._settings = host.settings
        self._loop = asyncio.get_running_loop()
        self._group: asyncio.TaskGroup | None = None
        self._watchdogs: list[Watchdog] = []
        self._paused: set[int] = set()

    async def run(self) -> None:
        """Use the wire until it fails. Always raises: an `ExceptionGroup`, or the reason itself."""
        try:
            async with asyncio.timeout(self._settings.step_s):
                info = await self.wire.open(self._host.layout, append_timeout_s=self._settings.append_timeout_s)
            self._host.on_open(info)
            async with asyncio.TaskGroup() as self._group:
                starts = await self._join_all()
                self._spawn(self._follow(starts), "follow")
                self._spawn(self._watch(), "watchdog")
                if type(self.wire).controls is not StreamWire.controls:
                    self._spawn(self._listen(), "controls")
        finally:
            self._group = None
            for log in self._host.logs:
                log.lost()
            await self._close()

    # -- joining the streams

    async def _join_all(self) -> dict[int, int | Start]:
        async with asyncio.TaskGroup() as joins:
            tasks = {log.number: joins.create_task(self._join(log), name="dws join") for log in self._host.logs}
        return {number: task.result() for number, task in tasks.items()}

    async def _join(self, log: Log) -> int | Start:
        """Append the verdict probe, and decide where to follow from."""
        async with asyncio.timeout(self._settings.step_s):
            bounds = await self.wire.bounds(log.number)
            number, data = log.next_probe(self._host.now_ms(), verdict=True)
            probe_offset = await self.wire.append(log.number, data)
            if probe_offset is None:
                probe_offset = await self._locate(log, number)
            resumed = log.judge(probe_offset, bounds)
            if resumed is not None:
                return resumed
            start, claim = await look_back(self.wire, log.number, probe_offset, self._host.now_ms())
        log.begin(claim)
        return start

    async def _locate(self, log: Log, number: int) -> int:
        """Find the verdict probe on a broker that does not report offsets."""
        async with closing(self.wire.follow({log.number: Start.LAST})) as records:
            async for _, offset, data in records:
                envelope = readable(data)
                if envelope and (envelope.kind, envelope.publisher, envelope.first) == (
                    Kind.PROBE,
                    log.publisher,
                    number,
                ):
                    return offset
        raise WireLost("the stream ended")

    # -- the tail

    async def _follow(self, starts: Mapping[int, int | Start]) -> None:
        now = self._loop.time()
        s = self._settings
        self._watchdogs = [Watchdog(now, probe_s=s.probe_s, dead_s=s.dead_s) for _ in self._host.logs]
        count = 0
        try:
            async with closing(self.wire.follow(starts)) as records:
                async for number, offset, data in records:
                    self._feed(self._host.logs[number], offset, data)
                    count += 1
                    if count % _BREATH == 0:
                        await asyncio.sleep(0)
        except WireOutOfRange as error:
            self._host.logs[error.partition].missing()
            raise
        raise WireLost("the stream ended")

    def _feed(self, log: Log, offset: int, data: bytes) -> None:
        self._watchdogs[log.number].heard(self._loop.time())
        events = log.feed(offset, data, self._host.new_epoch(), self._host.now_ms())
        self._host.on_events(log, events)
        for event in events:
            if isinstance(event, Propose):
                self._spawn(self.write(log, event.data), "genesis")
            elif isinstance(event, Moved):
                raise WireLost(f"partition {log.number} must be read again ({event.reason})")
            elif isinstance(event, Live):
                self._host.on_outcomes(log.queue.opened(again=event.again))
        self.flush(log)

    async def _listen(self) -> None:
        async with closing(self.wire.controls()) as messages:
            async for data in messages:
                self._host.on_control(data)
        raise WireLost("the control messages ended")

    # -- appending

    def flush(self, log: Log) -> None:
        """Append what waits, as far as the window allows."""
        if self._group is None or log.number in self._paused:
            return
        while (flight := log.queue.next_flight(self._host.now_ms())) is not None:
            self._spawn(self._append(log, flight, log.records(flight)), "append")

    async def _append(self, log: Log, flight: Flight[Ticket], data: bytes) -> None:
        try:
            await self.append(log, data)
        except WireRefused:
            self._host.on_outcomes(log.queue.refused(flight))
        except WireBlocked as error:
            log.queue.failed(flight, sent=False)
            self._pause(log, error.reason)
        except WireLost as error:
            log.queue.failed(flight, sent=error.sent)
            raise
        else:
            log.queue.confirmed(flight)
            self._host.on_blocked(None)
        self.flush(log)

    async def append(self, log: Log, data: bytes) -> None:
        """Append, and check that the offset is above everything that was seen before.

        Raises:
            WireLost: It is not, so the stream was set back or replaced.
        """
        end = log.end
        if not log.appended(end, await self.wire.append(log.number, data)):
            raise WireLost(f"partition {log.number} was set back or replaced")

    def _pause(self, log: Log, reason: str) -> None:
        self._host.on_blocked(reason)
        self._paused.add(log.number)
        self._loop.call_later(self._settings.retry_s, self._go_on, log)

    def _go_on(self, log: Log) -> None:
        self._paused.discard(log.number)
        self.flush(log)

    async def write(self, log: Log, data: bytes) -> None:
        """Append an envelope that is not part of the publish queue."""
        try:
            await self.append(log, data)
        except WireBlocked as error:  # the broker is there, so the connection is not dead
            self._host.on_blocked(error.reason)
            self._watchdogs[log.number].heard(self._loop.time())
        else:
            self._host.on_blocked(None)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, min(dog.look_at for dog in self._watchdogs) - self._loop.time()))
            for log, dog in zip(self._host.logs, self._watchdogs, strict=True):
                todo = dog.check(self._loop.time())
                if todo == "probe":
                    self._spawn(self.write(log, log.next_probe(self._host.now_ms())[1]), "probe")
                elif todo == "dead":
                    raise WireLost(f"nothing arrived from partition {log.number} for {self._settings.dead_s:g} s")

    # -- the end

    def _spawn(self, coroutine: Any, name: str) -> None:
        if self._group is None:
            coroutine.close()
        else:
            self._group.create_task(coroutine, name=f"dws {name}")

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self.wire.close()
        except Exception:
            logger.exception("a wire could not be closed")


async def look_back(wire: StreamWire, partition: int, end: int, time_ms: int) -> tuple[int | Start, Claim | None]:
    """Return where to begin to read so that the last window before `end` is covered, and the epoch there."""
    search, claim = Lookback(end, time_ms), None
    while search.start is None:
        envelope = await _sample(wire, partition, search.sample, end)
        if envelope is None:
            search.missing()
        else:
            claim = await _verified(wire, partition, search.sample, end, envelope)
            search.found(envelope.time_ms, suitable=claim is not None)
    return search.start, claim if isinstance(search.start, int) else None


async def _verified(wire: StreamWire, partition: int, at: int, end: int, envelope: Envelope) -> Claim | None:
    """Return what an ordinary envelope claims, if its epoch really began where it states, or that place was removed."""
    if envelope.kind is Kind.GENESIS or not any(envelope.epoch) or envelope.began >= at:
        return None
    genesis = await _sample(wire, partition, envelope.began, end)
    if genesis is not None and (genesis.kind, genesis.epoch) != (Kind.GENESIS, envelope.epoch):
        return None
    return Claim(envelope.epoch, envelope.began)


async def _sample(wire: StreamWire, partition: int, at: int, end: int) -> Envelope | None:
    """Return the first readable envelope from a place on, or None if the place was removed."""
    try:
        async with closing(wire.scan(partition, at, end)) as records:
            async for _, data in records:
                if envelope := readable(data):
                    return envelope
    except WireOutOfRange:
        pass
    return None


def readable(data: bytes) -> Envelope | None:
    """Return an envelope, or None if it cannot be read."""
    try:
        return decode(data)
    except UnreadableEnvelope:
        return None


@contextlib.asynccontextmanager
async def closing(items: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close an iterator at the end of the block, if it can be closed."""
    try:
        yield items
    finally:
        close: Callable[[], Any] | None = getattr(items, "aclose", None)
        if close is not None:
            await close()


def leaf(error: BaseException) -> BaseException:
    """Return the first error in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def reason_of(error: BaseException) -> str:
    """Return a few words about why a session ended."""
    if isinstance(error, TimeoutError):
        return "the broker does not answer"
    return error.reason if isinstance(error, WireError) else repr(error)


_EPOCH_BYTES: Final = 8


class Clock:
    """Where a node gets the time and random numbers. Tests replace it.

    Attributes:
        rng: Source of random numbers.
    """

    def __init__(self) -> None:
        self.rng: random.Random = random.SystemRandom()

    def now_ms(self) -> int:
        """Return the time, in milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def new_epoch(self) -> bytes:
        """Return 8 random bytes."""
        return secrets.token_bytes(_EPOCH_BYTES)
