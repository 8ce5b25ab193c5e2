"""Resuming: from a client's cursor to live delivery. The I/O around `dws_core._log.recovery`.

A replay is paced by its reader: a step goes out when the socket has taken the one before. So it never fills the outbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from dws_core._errors import BrokerError
from dws_core._log.contract import LogBroker
from dws_core._log.records import GapReason, ReadSpan, WantedTopics
from dws_core._log.recovery import Answer, Due, Recovery, ReplayLimits
from dws_core._log.tail import Lost
from dws_core._node.connection.connection import Connection, ConnectionHost
from dws_core._node.recovery.attachments import Attachment, Attachments
from dws_core._node.recovery.cursors import Cursors, pos_frame
from dws_core._node.recovery.interest import Interest
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._node.recovery.shared_reads import SharedReads
from dws_core._node.sending.shared_message import SharedMessage, members_of
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import Position, format_cursor
from dws_core._wire.frames import Frame, encode_frame

logger = logging.getLogger("dws")

_STEP_MESSAGES: Final = 256
_STEP_BYTES: Final = 32_768
"""What goes out between two looks at the socket."""

_KEPT_BYTES: Final = 8_388_608
"""Encoded messages that are kept for others who replay the same."""

_UNBOUNDED: Final = 2**62


class Attach:
    """Attaches connections at their cursors.

    Args:
        broker: Where the logs are.
        host: The node: limits, fan-out, tasks.
        logs: What the node knows.
        interest: What connections want.
        positions: Where live connections stand.
        codecs: Of the node, by name.

    Attributes:
        attachments: The connections that are on their way.
    """

    def __init__(
        self,
        broker: LogBroker,
        host: ConnectionHost,
        logs: LogCaches,
        interest: Interest,
        positions: Cursors,
        codecs: Mapping[str, Codec],
    ) -> None:
        self.attachments: Attachments = Attachments(interest)
        self._broker = broker
        self._host = host
        self._logs = logs
        self._interest = interest
        self._positions = positions
        self._codecs = codecs
        self._backfills = SharedReads(broker, host.tasks)
        self._kept: dict[tuple[int, str, int], SharedMessage] = {}
        self._kept_bytes = 0

    async def turn(self) -> None:
        """Wait for a turn to attach: thousands may want to at once."""
        await self._host.pacer.wait_turn()

    async def attach(
        self,
        connection: Connection,
        cursor: Mapping[int, Position],
        wanted: Mapping[int, WantedTopics],
        on_answer: Callable[[Answer], None],
    ) -> None:
        """Resume; returns when the client is answered. What follows is sent in the background.

        The connection's filters are in the router already, in the same step of the event loop.

        Args:
            connection: Whose cursor it is; not on its way already.
            cursor: As it came.
            wanted: What is resumed, by partition.
            on_answer: Sends the answer; the gap follows by itself.
        """
        recovers = self._broker.capabilities.recovery
        self._logs.expire()
        recovery = Recovery(cursor, wanted, self._logs, recovers=recovers, limits=self.limits)
        attachment = Attachment(connection, recovery)
        self.attachments.add(attachment)
        try:
            answer = await self._answer(attachment)
            on_answer(answer)
            if answer.gap is not None:
                self._push_gap(connection, answer.gap, answer.cursor if recovers else {}, sorted(connection.topics))
            if not self._go_live(attachment):
                self._host.tasks.spawn(self._pump(attachment), name=f"replay to connection {connection.id!r}")
        except BaseException:
            self.attachments.remove(connection)
            raise

    async def _answer(self, attachment: Attachment) -> Answer:
        recovery = attachment.recovery
        async with asyncio.TaskGroup() as questions:
            for span in recovery.to_read():
                questions.create_task(self._read(attachment, span))
            if partitions := recovery.to_confirm:
                questions.create_task(self._confirm(recovery, partitions))
        if recovery.answer is None:
            raise RuntimeError("a recovery has no answer although everything was read")
        return recovery.answer

    async def _read(self, attachment: Attachment, span: ReadSpan) -> None:
        attachment.recovery.found(span, await self._backfills.read(span))
        attachment.news.set()

    async def _confirm(self, recovery: Recovery, partitions: Collection[int]) -> None:
        try:
            heads = await self._broker.heads(partitions)
        except Exception as error:
            if not isinstance(error, BrokerError):
                logger.exception("the broker failed to say where its logs end")
            recovery.refuse(GapReason.UNAVAILABLE)
            return
        for head in heads.values():
            recovery.confirmed(head)

    # -- the replay

    async def _pump(self, attachment: Attachment) -> None:
        connection, recovery = attachment.connection, attachment.recovery
        try:
            while not connection.closed:
                for span in recovery.to_read():
                    self._host.tasks.spawn(self._read(attachment, span), name="read for a slow reader")
                await self._host.pacer.wait_turn()
                self._logs.expire()
                due = recovery.take(max_messages=_STEP_MESSAGES, max_bytes=_STEP_BYTES)
                if due:
                    await self._send(connection, due)
                elif self._go_live(attachment):
                    return
                else:
                    attachment.news.clear()
                    await attachment.news.wait()
        finally:
            self.attachments.remove(connection)

    def _go_live(self, attachment: Attachment) -> bool:
        """End the replay if nothing is left of it: in one step, so that nothing comes in between."""
        connection, recovery = attachment.connection, attachment.recovery
        if not recovery.settled:
            return False
        if recovery.answer is not None and recovery.answer.gap is None:
            connection.push(pos_frame(connection, recovery.position()))
        self.attachments.remove(connection)
        return True

    async def _send(self, connection: Connection, due: list[Due | Lost]) -> None:
        """Send in steps that the outbox has room for, however small it is."""
        limit = self._host.limits.outbox_bytes
        room = _STEP_BYTES if limit is None else min(_STEP_BYTES, limit // 2)
        waiting = 0
        for frame in self._frames(connection, due):
            if waiting and waiting + len(frame) > room:
                await self._written(connection)
                waiting = 0
            connection.push(frame)
            waiting += len(frame)
        await self._written(connection)

    async def _written(self, connection: Connection) -> None:
        await self._host.fanout.flushed()
        await connection.outbox.idle()

    def _frames(self, connection: Connection, due: list[Due | Lost]) -> Iterable[Frame]:
        for item in due:
            if isinstance(item, Lost):
                head = item.head
                cursor = {head.partition: Position(head.partition, head.epoch, head.offset)}
                filters = self._interest.filters_in(connection, head.partition)
                yield gap_frame(connection.codec, item.reason, cursor, filters)
            elif (frame := self._shared(item).frame(connection.codec)) is not None:
                self._host.counters.deliveries += 1
                yield frame

    def _shared(self, due: Due) -> SharedMessage:
        """Return a message as it may have been encoded for another connection before."""
        partition, epoch, record = due
        key = partition, epoch, record.offset or 0
        if record.offset is not None and (kept := self._kept.get(key)) is not None:
            return kept
        made = SharedMessage(record.topic, members_of(partition, epoch, record), record.payload, self._codecs)
        if record.offset is not None:
            if self._kept_bytes > _KEPT_BYTES:
                self._kept.clear()
                self._kept_bytes = 0
            self._kept[key] = made
            self._kept_bytes += 2 * len(record.payload) + 512
        return made

    def _push_gap(
        self, connection: Connection, reason: GapReason, cursor: Mapping[int, Position], filters: list[str]
    ) -> None:
        connection.push(gap_frame(connection.codec, reason, cursor, filters))

    @property
    def limits(self) -> ReplayLimits:
        """Bounds of one replay."""
        limits = self._host.limits
        return ReplayLimits(
            messages=limits.replay_messages or _UNBOUNDED,
            bytes=limits.replay_bytes or _UNBOUNDED,
            held_bytes=limits.outbox_bytes or _UNBOUNDED,
        )


def gap_frame(codec: Codec, reason: GapReason, cursor: Mapping[int, Position], filters: list[str]) -> Frame:
    """Return the announcement that messages may have been lost."""
    gap: dict[str, Any] = {"type": "gap", "filters": filters, "reason": str(reason), "cursor": format_cursor(cursor)}
    return encode_frame(codec, gap)
