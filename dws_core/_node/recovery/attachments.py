"""The connections that are on their way from a cursor to live delivery: what is live for them is held back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from dws_core._log.records import GapReason, Head, Record
from dws_core._log.recovery import Recovery
from dws_core._node.connection.connection import Connection
from dws_core._node.recovery.interest import Interest


class Attachment:
    """One of them.

    Attributes:
        connection: Whose it is.
        recovery: What decides.
        news: Set when there may be something to do.
        ended: Set when the connection is live, or gone.
    """

    __slots__ = ("connection", "ended", "news", "recovery")

    def __init__(self, connection: Connection, recovery: Recovery) -> None:
        self.connection: Connection = connection
        self.recovery: Recovery = recovery
        self.news: asyncio.Event = asyncio.Event()
        self.ended: asyncio.Event = asyncio.Event()


class Attachments:
    """All of a node; usually none, and then it costs the delivery one look."""

    def __init__(self, interest: Interest) -> None:
        self._interest = interest
        self._all: dict[Connection, Attachment] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, connection: object) -> bool:
        return connection in self._all

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._all))

    def add(self, attachment: Attachment) -> None:
        """Hold back what is live for a connection, from now on."""
        self._all[attachment.connection] = attachment

    def remove(self, connection: Connection) -> None:
        """Deliver directly, from now on; one that is not there is no error."""
        if (attachment := self._all.pop(connection, None)) is not None:
            attachment.ended.set()
            attachment.news.set()

    async def ended(self, connection: Connection) -> None:
        """Wait until a connection is live."""
        while (attachment := self._all.get(connection)) is not None:
            await attachment.ended.wait()

    def divert(
        self, receivers: Sequence[Connection], partition: int, epoch: str, record: Record
    ) -> Sequence[Connection]:
        """Take out the receivers for which a record has to wait; the log has been advanced already."""
        held = {
            attachment.connection
            for attachment in self._all.values()
            if partition in attachment.recovery.partitions and self._interest.wants(attachment.connection, record.topic)
        }
        for connection in held:
            self._all[connection].recovery.on_record(partition, epoch, record)
        return tuple(receiver for receiver in receivers if receiver not in held) if held else receivers

    def on_advance(self) -> None:
        """Note that a log has moved on."""
        for attachment in self._all.values():
            attachment.news.set()

    def on_discontinuity(self, reason: GapReason, head: Head) -> set[Connection]:
        """Take that the node lost its place; return who hears of it in its turn."""
        told = set()
        for attachment in self._all.values():
            if head.partition in attachment.recovery.partitions:
                attachment.recovery.on_discontinuity(reason, head)
                attachment.news.set()
                told.add(attachment.connection)
        return told
