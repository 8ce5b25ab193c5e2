"""Appending to one wire: publishes within their window, and single envelopes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from dws_core._log.stream.io.host import Host, Log, Ticket
from dws_core._log.stream.lane import to_all
from dws_core._log.stream.publishing import Flight, PublishQueue
from dws_core._log.stream.wire import StreamWire, WireBlocked, WireLost, WireRefused

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], bool]
"""Runs a coroutine as a task of the session, with a name. Returns False if the session is ending."""


class Appender:
    """The appends of one session.

    Args:
        host: The node.
        wire: An open wire.
        spawn: Starts a task of the session.
        is_alive: Called with a partition whose append was refused for the moment, so the broker is there.
    """

    def __init__(self, host: Host, wire: StreamWire, *, spawn: Spawn, is_alive: Callable[[Log], None]) -> None:
        self._host = host
        self._wire = wire
        self._spawn = spawn
        self._is_alive = is_alive
        self._loop = asyncio.get_running_loop()
        self._paused: set[int] = set()
        self._is_lost = False

    def flush(self, log: Log) -> None:
        """Append waiting publishes, as far as the window allows."""
        if log.number in self._paused:
            return
        for queue in log.queues:
            while (flight := queue.next_flight(self._host.clock.now_ms())) is not None:
                send = self._send(log, queue, flight, log.records(flight), len(flight.items))
                if not self._spawn(send, "append"):
                    queue.failed(flight, sent=False)
                    return

    async def append(self, log: Log, data: bytes) -> None:
        """Append, and check that the offset is above everything that was seen before.

        Raises:
            WireLost: It is not, so the stream was set back or replaced.
        """
        end = log.end
        try:
            offset = await self._wire.append(log.number, data)
        except WireLost:
            self._is_lost = True
            raise
        if not log.appended(end, offset):
            self._is_lost = True
            raise WireLost(f"partition {log.number} was set back or replaced")

    async def write(self, log: Log, data: bytes) -> None:
        """Append an envelope that is not part of the publish queue."""
        try:
            await (self.append(log, data) if log.stores else self._send_to_all(log, data))
        except WireBlocked as error:
            self._host.on_blocked(error.reason)
            self._is_alive(log)
        else:
            self._host.on_blocked(None)

    async def _send(
        self, log: Log, queue: PublishQueue[Ticket], flight: Flight[Ticket], data: bytes, count: int
    ) -> None:
        if self._is_lost:
            queue.failed(flight, sent=False)
            return
        if len(flight.items) != count:  # some have failed in the meantime, and must not be stored
            queue.failed(flight, sent=False)
            self.flush(log)
            return
        queue.sent(flight)
        try:
            if queue is log.queue:
                await self.append(log, data)
            else:
                await self._send_to_all(log, data)
        except WireRefused:
            self._host.on_outcomes(queue.refused(flight))
        except WireBlocked as error:
            queue.failed(flight, sent=error.sent)
            self._pause(log, error.reason)
        except WireLost as error:
            queue.failed(flight, sent=error.sent)
            raise
        else:
            queue.confirmed(flight)
            self._host.on_blocked(None)
        self.flush(log)

    async def _send_to_all(self, log: Log, data: bytes) -> None:
        try:
            await self._wire.send_control(to_all(log.number, data))
        except WireLost:
            self._is_lost = True
            raise

    def _pause(self, log: Log, reason: str) -> None:
        self._host.on_blocked(reason)
        self._paused.add(log.number)
        self._loop.call_later(self._host.settings.retry_s, self._go_on, log)

    def _go_on(self, log: Log) -> None:
        self._paused.discard(log.number)
        self.flush(log)
