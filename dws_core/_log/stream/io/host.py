"""What a session needs of its node."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, TypeAlias

import msgspec

from dws_core._log.records import Layout
from dws_core._log.stream.io.clock import Clock
from dws_core._log.stream.partition_log import PartitionEvent, PartitionLog
from dws_core._log.stream.publishing import Place
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.wire import WireInfo


class Ticket(msgspec.Struct, frozen=True, eq=False):
    """A publish of a caller.

    Attributes:
        future: Its future.
        topic: Its topic.
        partition: Number of its partition.
        place: Its place among the publishes that keep their order through failures, or None.
    """

    future: asyncio.Future[Any]
    topic: str
    partition: int = 0
    place: Place | None = None


Log: TypeAlias = PartitionLog[Ticket]


class Host(Protocol):
    """A node, as its sessions see it."""

    settings: StreamSettings
    layout: Layout
    logs: list[Log]
    clock: Clock

    @property
    def is_started(self) -> bool:
        """Whether an earlier session was live."""

    def on_open(self, info: WireInfo) -> None:
        """Note the limits of the streams."""

    def on_events(self, log: Log, events: list[PartitionEvent]) -> None:
        """Handle the events of a partition that do not need the wire."""

    def on_control(self, data: bytes) -> Log | None:
        """Deliver a message that came through `StreamWire.controls`. Return its partition, if it can be read."""

    def on_outcomes(self, outcomes: list[tuple[Ticket, Any]]) -> None:
        """Complete publishes."""

    def on_catching_up(self) -> None:
        """Note that a tail needs long to read the missed records."""

    def on_lag(self, log: Log, *, is_behind: bool) -> None:
        """Note that a tail is far behind its stream, or is not any more."""

    def on_blocked(self, reason: str | None) -> None:
        """Note that the broker accepts nothing, or, with None, that it accepts appends again."""
