"""Recovery of a connection: from its cursor to live delivery. The I/O around `dws_core._log.recovery`.

The client sets the pace of its replay: a step is sent when the socket has accepted the previous one. A replay therefore
never fills the outbox.
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
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.host import ConnectionHost
from dws_core._node.recovery.attachments import Attachment, Attachments
from dws_core._node.recovery.interest import Interest
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._node.recovery.shared_reads import SharedReads
from dws_core._node.sending.shared_message import SharedMessage
from dws_core._wire import server_messages
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import Position
from dws_core._wire.frames import Frame, encode_frame

logger = logging.getLogger("dws")

_STEP_MESSAGES: Final = 256
_STEP_BYTES: Final = 32_768
"""Maximum size of one replay step. The socket is checked between steps."""

_ENCODED_BYTES: Final = 8_388_608
"""Maximum size of the encoded messages that are shared by replays of the same records."""

_UNBOUNDED: Final = 2**62


class Attach:
    """Recovers connections from their cursors.

    Args:
        broker: Reads the logs.
        host: Limits, fan-out, tasks, pacer and counters of the node.
        caches: The node's view of the logs.
        interest: The topics that connections want.
        attachments: The recovering connections.
        codecs: The node's codecs by name.
    """

    def __init__(
        self,
        broker: LogBroker,
        *,
        host: ConnectionHost[Any],
        caches: LogCaches,
        interest: Interest,
        attachments: Attachments,
        codecs: Mapping[str, Codec],
    ) -> None:
        self._broker = broker
        self._host = host
        self._caches = caches
        self._interest = interest
        self._attachments = attachments
        self._codecs = codecs
        self._reads = SharedReads(broker, host.tasks, host.pacer)
        self._encoded: dict[tuple[int, str, int], SharedMessage] = {}
        self._encoded_bytes = 0

    async def prepare(self, cursor: Mapping[int, Position], wanted: Mapping[int, WantedTopics]) -> None:
        """Do a part of the work of a later `attach` in small steps, between which others continue."""
        for partition, topics in wanted.items():
            if partition in cursor and partition in self._caches:
                while self._caches[partition].prepare(cursor[partition].offset, topics):
                    await self._host.pacer.wait_turn()

    async def attach(
        self,
        connection: Connection,
        cursor: Mapping[int, Position],
        wanted: Mapping[int, WantedTopics],
        on_answer: Callable[[Answer], None],
    ) -> None:
        """Recover a connection. Return once its request is answered. The replay continues in the background.

        The connection's filters have entered the router in the same step of the event loop.

        Args:
            connection: A connection that is not recovering.
            cursor: The cursor of its request.
            wanted: The topics to recover, by partition.
            on_answer: Sends the answer. This method sends the gap that may follow.
        """
        recovers = self._broker.capabilities.recovery
        self._caches.expire()
        recovery = Recovery(cursor, wanted, self._caches, recovers=recovers, limits=self._replay_limits)
        attachment = Attachment(connection, recovery)
        self._attachments.add(attachment)
        try:
            answer = await self._answer(attachment)
            on_answer(answer)
            if answer.gap is not None:
                gap = server_messages.gap(connection.topics, answer.gap, answer.cursor)
                self._host.fanout.send(connection, gap)
            if not self._go_live(attachment):
                self._host.tasks.spawn(self._replay(attachment), name=f"replay to connection {connection.id!r}")
        except BaseException:
            self._attachments.remove(connection)
            raise

    async def _answer(self, attachment: Attachment) -> Answer:
        recovery = attachment.recovery
        async with asyncio.TaskGroup() as reads:
            for span in recovery.to_read():
                reads.create_task(self._read(attachment, span))
            if partitions := recovery.to_confirm:
                reads.create_task(self._confirm(recovery, partitions))
        if recovery.answer is None:
            raise RuntimeError("a recovery has no answer although all its reads have ended")
        return recovery.answer

    async def _read(self, attachment: Attachment, span: ReadSpan) -> None:
        attachment.recovery.found(span, await self._reads.read(span))
        attachment.progress.set()

    async def _confirm(self, recovery: Recovery, partitions: Collection[int]) -> None:
        try:
            heads = await self._broker.heads(partitions)
        except Exception as error:
            if not isinstance(error, BrokerError):
                logger.exception("the broker failed to return the ends of its logs")
            recovery.refuse(GapReason.UNAVAILABLE)
            return
        for head in heads.values():
            recovery.confirmed(head)

    async def _replay(self, attachment: Attachment) -> None:
        connection, recovery = attachment.connection, attachment.recovery
        try:
            while not connection.closed:
                for span in recovery.to_read():
                    self._host.tasks.spawn(self._read(attachment, span), name="read for a slow client")
                await self._host.pacer.wait_turn()
                self._caches.expire()
                due = recovery.take(max_messages=_STEP_MESSAGES, max_bytes=_STEP_BYTES)
                if due:
                    await self._send(connection, due)
                elif self._go_live(attachment):
                    return
                else:
                    await self._attachments.wait_for_progress(attachment)
        finally:
            self._attachments.remove(connection)

    def _go_live(self, attachment: Attachment) -> bool:
        """End the replay if nothing is left to send. One step of the event loop, so that no record arrives between."""
        connection, recovery = attachment.connection, attachment.recovery
        if not recovery.settled:
            return False
        if recovery.answer is not None and recovery.answer.gap is None:
            self._host.fanout.send(connection, server_messages.pos(recovery.position()))
        self._attachments.remove(connection)
        return True

    async def _send(self, connection: Connection, due: list[Due | Lost]) -> None:
        """Send in steps that fit into the outbox, however small it is."""
        limit = self._host.limits.outbox_bytes
        room = _STEP_BYTES if limit is None else min(_STEP_BYTES, limit // 2)
        size = 0
        for frame in self._frames(connection, due):
            if size and size + len(frame) > room:
                await connection._caught_up()
                size = 0
            self._host.fanout.push_one(connection, frame)
            size += len(frame)
        await connection._caught_up()

    def _frames(self, connection: Connection, due: list[Due | Lost]) -> Iterable[Frame]:
        for item in due:
            if isinstance(item, Lost):
                head = item.head
                cursor = {head.partition: Position(head.partition, head.epoch, head.offset)}
                filters = self._interest.filters_in(connection, head.partition)
                yield encode_frame(connection.codec, server_messages.gap(filters, item.reason, cursor))
            elif (frame := self._shared(item).frame(connection.codec)) is not None:
                self._host.counters.deliveries += 1
                yield frame

    def _shared(self, due: Due) -> SharedMessage:
        """Return a record's message, which another replay may have encoded before."""
        partition, epoch, record = due
        if record.offset is None:
            return SharedMessage(partition, epoch, record, self._codecs)
        key = partition, epoch, record.offset
        if (encoded := self._encoded.get(key)) is not None:
            return encoded
        if self._encoded_bytes > _ENCODED_BYTES:
            self._encoded.clear()
            self._encoded_bytes = 0
        message = self._encoded[key] = SharedMessage(partition, epoch, record, self._codecs)
        self._encoded_bytes += 2 * len(record.payload) + 512
        return message

    @property
    def _replay_limits(self) -> ReplayLimits:
        """Limits of one replay."""
        limits = self._host.limits
        return ReplayLimits(
            messages=limits.replay_messages or _UNBOUNDED,
            bytes=limits.replay_bytes or _UNBOUNDED,
            held_bytes=limits.outbox_bytes or _UNBOUNDED,
        )
