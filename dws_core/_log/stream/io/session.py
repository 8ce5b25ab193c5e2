"""One wire, from `open` to its first failure. All tasks of a session end with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from dws_core._log.stream.io.appender import Appender
from dws_core._log.stream.io.host import Host, Log
from dws_core._log.stream.io.joining import join
from dws_core._log.stream.io.scanning import Pace, closing
from dws_core._log.stream.lag import Lag
from dws_core._log.stream.partition_log import Live, PartitionEvent, Propose
from dws_core._log.stream.tail import Moved, ProbeSeen
from dws_core._log.stream.wire import Start, StreamWire, WireBlocked, WireLost, WireOutOfRange, sends_to_all
from dws_core._log.watchdog import Watchdog

logger = logging.getLogger("dws.stream")

_CLOSE_S: Final = 1.0


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
        self._appender = Appender(host, wire, spawn=self._spawn, is_alive=self._heard)
        self._watchdogs: list[Watchdog] = []
        self._lags: list[Lag] = []
        self._patient_until = 0.0

    async def run(self) -> None:
        """Use the wire until it fails. Always raises: an `ExceptionGroup`, or the reason itself."""
        try:
            async with asyncio.timeout(self._settings.step_s):
                info = await self.wire.open(self._host.layout, append_timeout_s=self._settings.append_timeout_s)
            self._host.on_open(info)
            async with asyncio.TaskGroup() as self._group:
                starts = await self._join_all()
                self._begin()
                if all(log.stores for log in self._host.logs):
                    self._spawn(self._follow(starts), "follow")
                self._spawn(self._watch(), "watchdog")
                if sends_to_all(self.wire):
                    self._spawn(self._listen(), "controls")
        finally:
            self._group = None
            for log in self._host.logs:
                log.lost()
            await self._close()

    def flush(self, log: Log) -> None:
        """Append waiting publishes, as far as the window allows."""
        if self._group is not None:
            self._appender.flush(log)

    async def _join_all(self) -> dict[int, int | Start]:
        async with asyncio.TaskGroup() as joins:
            tasks = {log.number: joins.create_task(self._join(log), name="dws join") for log in self._host.logs}
        return {number: task.result() for number, task in tasks.items()}

    async def _join(self, log: Log) -> int | Start:
        """Join a stream. A node that was live waits as long as the broker is blocked, but the first start fails."""
        while True:
            try:
                async with asyncio.timeout(self._settings.step_s):
                    return await join(self.wire, log, self._host.clock, self._settings.step_s)
            except WireBlocked as error:
                if not self._host.is_started:
                    raise
                self._host.on_blocked(error.reason)
            await asyncio.sleep(self._settings.retry_s)

    def _begin(self) -> None:
        now, settings = self._loop.time(), self._settings
        self._watchdogs = [Watchdog(now, probe_s=settings.probe_s, dead_s=settings.dead_s) for _ in self._host.logs]
        self._lags = [Lag(settings.behind_s) for _ in self._host.logs]
        self._patient_until = now + settings.behind_s
        for log in self._host.logs:
            if not log.stores:
                self._handle(log, log.begin_unstored())
                self.flush(log)

    async def _follow(self, starts: Mapping[int, int | Start]) -> None:
        pace = Pace()
        try:
            async with closing(self.wire.follow(starts)) as records:
                async for number, offset, data in records:
                    self._feed(self._host.logs[number], offset, data)
                    if pace.is_due(data):
                        await asyncio.sleep(0)
        except WireOutOfRange as error:
            self._host.logs[error.partition].missing()
            raise
        raise WireLost("the stream ended")

    def _feed(self, log: Log, offset: int, data: bytes) -> None:
        self._heard(log)
        self._handle(log, log.feed(offset, data, self._host.clock.new_epoch, self._host.clock.now_ms()))
        if log.is_live:
            self._measure(log)
        elif self._loop.time() > self._patient_until:
            self._host.on_catching_up()
        self.flush(log)

    def _handle(self, log: Log, events: list[PartitionEvent]) -> None:
        self._host.on_events(log, events)
        for event in events:
            if isinstance(event, Propose):
                self._spawn(self._appender.write(log, event.data), "genesis")
            elif isinstance(event, Moved):
                raise WireLost(f"partition {log.number} must be read again ({event.reason})")
            elif isinstance(event, Live):
                self._host.on_outcomes(log.queue.opened(again=event.again))
                self._host.on_outcomes(log.lane.queue.opened(again=False))
            elif isinstance(event, ProbeSeen):
                self._lags[log.number].seen(event.number, self._loop.time())

    def _measure(self, log: Log) -> None:
        """Find out whether the tail is far behind the stream."""
        lag, now, now_ms = self._lags[log.number], self._loop.time(), self._host.clock.now_ms()
        if lag.read((now_ms - log.reading.time_ms) / 1000, now):
            number, data = log.next_probe(now_ms)
            lag.asked(number, now)
            self._spawn(self._appender.write(log, data), "probe")
        self._host.on_lag(log, is_behind=lag.is_behind)

    async def _listen(self) -> None:
        async with closing(self.wire.controls()) as messages:
            async for data in messages:
                log = self._host.on_control(data)
                if log is not None and not log.stores:
                    self._heard(log)
        raise WireLost("the control messages ended")

    def _heard(self, log: Log) -> None:
        self._watchdogs[log.number].heard(self._loop.time())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, min(dog.look_at for dog in self._watchdogs) - self._loop.time()))
            for log, dog in zip(self._host.logs, self._watchdogs, strict=True):
                todo = dog.check(self._loop.time())
                if todo == "probe":
                    data = log.next_probe(self._host.clock.now_ms())[1]
                    self._spawn(self._appender.write(log, data), "probe")
                elif todo == "dead":
                    raise WireLost(f"nothing arrived from partition {log.number} for {self._settings.dead_s:g} s")

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> bool:
        """Run a coroutine as a task of this session. Return False if the session is ending."""
        if self._group is not None:
            try:
                self._group.create_task(coroutine, name=f"dws {name}")
            except RuntimeError:  # the group cancels its tasks
                pass
            else:
                return True
        coroutine.close()
        return False

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self.wire.close()
        except Exception:
            logger.exception("a wire could not be closed")
