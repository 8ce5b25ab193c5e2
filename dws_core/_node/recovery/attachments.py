"""Connections that are recovering. Their live messages are held back until the replay has been sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

from dws_core._log.records import GapReason, Head, Record
from dws_core._log.recovery import Recovery
from dws_core._node.connection.connection import Connection


class Attachment:
    """One recovering connection.

    Attributes:
        connection: The connection.
        recovery: Its recovery, which decides what is sent.
        progress: Set when the replay may be able to continue.
        ended: Set when the connection is live or closed.
        patience: Time limit of the wait for an answer. None if it does not wait.
    """

    __slots__ = ("connection", "ended", "patience", "progress", "recovery")

    def __init__(self, connection: Connection, recovery: Recovery) -> None:
        self.connection: Connection = connection
        self.recovery: Recovery = recovery
        self.progress: asyncio.Event = asyncio.Event()
        self.ended: asyncio.Event = asyncio.Event()
        self.patience: asyncio.Timeout | None = None

    def on_discontinuity(self, reason: GapReason, head: Head) -> None:
        """Pass a loss of the tail to the recovery. One that waits for its answer is refused with a gap."""
        self.recovery.on_discontinuity(reason, head)
        self.progress.set()
        self.stop_waiting()

    def stop_waiting(self) -> None:
        """End the wait for an answer."""
        if self.patience is not None and not self.patience.expired():
            self.patience.reschedule(0)


class Attachments:
    """The recovering connections of this node. Usually empty, which delivery checks with a single truth test.

    Attributes:
        waiting: Number of those that wait for the broker.
    """

    def __init__(self) -> None:
        self.waiting: int = 0
        self._all: dict[Connection, Attachment] = {}
        self._waiting: set[Attachment] = set()

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, connection: object) -> bool:
        return connection in self._all

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._all))

    def add(self, attachment: Attachment) -> None:
        """Hold back live messages of a connection from now on."""
        self._all[attachment.connection] = attachment

    def remove(self, connection: Connection) -> None:
        """Deliver live messages directly from now on. A connection that is not recovering is no error."""
        if (attachment := self._all.pop(connection, None)) is not None:
            attachment.ended.set()
            attachment.progress.set()
            attachment.stop_waiting()

    @asynccontextmanager
    async def wait_for_broker(self, attachment: Attachment, patience_s: float) -> AsyncIterator[None]:
        """Count the block as waiting, and limit its duration.

        Raises:
            TimeoutError: The patience has ended, the connection was removed, or the recovery was refused.
        """
        self.waiting += 1
        try:
            async with asyncio.timeout(patience_s) as patience:
                attachment.patience = patience
                try:
                    yield
                finally:
                    attachment.patience = None
        finally:
            self.waiting -= 1

    async def ended(self, connection: Connection) -> None:
        """Wait until a connection is not recovering."""
        while (attachment := self._all.get(connection)) is not None:
            await attachment.ended.wait()

    def hold_back(
        self, receivers: Sequence[Connection], partition: int, epoch: str, record: Record
    ) -> Sequence[Connection]:
        """Give a record to the recoveries among its receivers. Return the receivers that are not recovering.

        The partition's cache has been advanced before. The cost does not depend on the number of recovering connections.
        """
        if self._all.keys().isdisjoint(receivers):
            return receivers
        live: list[Connection] = []
        for receiver in receivers:
            attachment = self._all.get(receiver)
            if attachment is not None and partition in attachment.recovery.partitions:
                attachment.recovery.on_record(partition, epoch, record)
            else:
                live.append(receiver)
        return receivers if len(live) == len(receivers) else tuple(live)

    async def wait_for_progress(self, attachment: Attachment) -> None:
        """Wait until a replay may be able to continue."""
        attachment.progress.clear()
        self._waiting.add(attachment)
        try:
            await attachment.progress.wait()
        finally:
            self._waiting.discard(attachment)

    def on_advance(self) -> None:
        """Wake the replays that wait, because a log has advanced."""
        for attachment in self._waiting:
            attachment.progress.set()

    def on_discontinuity(self, reason: GapReason, head: Head) -> set[Connection]:
        """Pass a loss of the tail to the recoveries. Return the connections that get their gap from them."""
        informed = set()
        for attachment in self._all.values():
            if head.partition in attachment.recovery.partitions:
                attachment.on_discontinuity(reason, head)
                informed.add(attachment.connection)
        return informed
