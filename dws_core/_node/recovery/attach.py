"""Recovery of a connection: from its cursor to live delivery. The I/O around `dws_core._log.recovery`.

The client sets the pace of its replay: a step is sent when the socket has accepted the previous one. A replay therefore
never fills the outbox.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from dws_core._log.records import ReadSpan, WantedTopics
from dws_core._log.recovery import Answer, Due, Recovery, ReplayLimits
from dws_core._log.tail import Lost
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.host import ConnectionHost
from dws_core._node.connection.senders import Senders
from dws_core._node.recovery.attachments import Attachment, Attachments
from dws_core._node.recovery.interest import Interest
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._node.recovery.shared_reads import SharedReads
from dws_core._node.sending.shared_message import SharedMessage
from dws_core._wire import server_messages
from dws_core._wire.client_errors import Refused
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import Position
from dws_core._wire.frames import Frame, encode_frame

STEP_MESSAGES: Final = 256
STEP_BYTES: Final = 32_768
"""Maximum size of one replay step. The socket is checked between steps."""

_ENCODED_BYTES: Final = 8_388_608
"""Maximum size of the encoded messages that are shared by replays of the same records."""

_UNBOUNDED: Final = 2**62

_RETRY_IN_S: Final = 5.0
"""Latest time at which a client that was refused should try again, in seconds. A random part of it is sent."""


class Attach:
    """Recovers connections from their cursors.

    Args:
        reads: Reads the logs.
        host: Limits, fan-out, tasks, pacer and counters of the node.
        caches: The node's view of the logs.
        interest: The topics that connections want.
        attachments: The recovering connections.
        senders: Finds connections that a message excludes.
        codecs: The node's codecs by name.
    """

    def __init__(
        self,
        reads: SharedReads,
        *,
        host: ConnectionHost[Any],
        caches: LogCaches,
        interest: Interest,
        attachments: Attachments,
        senders: Senders,
        codecs: Mapping[str, Codec],
    ) -> None:
        self._reads = reads
        self._host = host
        self._caches = caches
        self._interest = interest
        self._attachments = attachments
        self._senders = senders
        self._codecs = codecs
        self._encoded: dict[tuple[int, str, int], SharedMessage] = {}
        self._encoded_bytes = 0

    @property
    def recovers(self) -> bool:
        """Whether the broker can recover missed messages. This is certain only after its start."""
        return self._reads.recovers

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
        filters: Collection[str],
        on_answer: Callable[[Answer], None],
    ) -> None:
        """Add filters to a connection and recover it. Return once its request is answered.

        The replay continues in the background.

        Args:
            connection: A connection that is not recovering.
            cursor: The cursor of its request.
            wanted: The topics to recover, by partition.
            filters: The filters to add. They are removed again if this method raises.
            on_answer: Sends the answer. This method sends the gap that may follow.

        Raises:
            Refused: The broker cannot be reached in time, or too many requests wait for it.
        """
        self._caches.expire()
        recovery = Recovery(cursor, wanted, self._caches, recovers=self.recovers, limits=self.replay_limits)
        attachment = Attachment(connection, recovery)
        added = [filter_ for filter_ in filters if filter_ not in connection.topics]
        for filter_ in added:
            connection.topics.add(filter_)
        self._attachments.add(attachment)
        try:
            answer = await self.answer(attachment)
            on_answer(answer)
            if answer.gap is not None:
                gap = server_messages.gap(connection.topics, answer.gap, answer.cursor)
                self._host.fanout.send(connection, gap)
            if not self._go_live(attachment):
                self._host.tasks.spawn(self._replay(attachment), name=f"replay to connection {connection.id!r}")
        except BaseException:
            self._detach(attachment, added)
            raise

    def _detach(self, attachment: Attachment, added: Collection[str]) -> None:
        """Undo an attempt. Messages of the connection's earlier filters that were held back are sent."""
        connection = attachment.connection
        for filter_ in added:
            connection.topics.discard(filter_)
        self._attachments.remove(connection)
        if connection.closed:
            return
        wanted = self._interest.wanted(connection, connection.topics)
        due = [item for item in attachment.recovery.abandon() if _concerns(item, wanted)]
        for frame in self._frames(connection, due):
            self._host.fanout.push_one(connection, frame)

    async def answer(self, attachment: Attachment) -> Answer:
        """Return the answer of a recovery, after the reads and queries that it needs.

        Raises:
            Refused: The broker cannot be reached in time, or too many requests wait for it.
        """
        if attachment.recovery.answer is None:
            await self._ask_broker(attachment)
        if attachment.recovery.answer is None:
            raise RuntimeError("a recovery has no answer although all its reads have ended")
        return attachment.recovery.answer

    async def _ask_broker(self, attachment: Attachment) -> None:
        """Do the reads of a recovery, however often they must be attempted."""
        recovery, limits = attachment.recovery, self._host.limits
        if limits.waiting_resumes is not None and self._attachments.waiting >= limits.waiting_resumes:
            raise unavailable("too many requests wait for the broker")
        try:
            async with (
                self._attachments.wait_for_broker(attachment, limits.resume_patience_s),
                asyncio.TaskGroup() as reads,
            ):
                for span in recovery.to_read():
                    reads.create_task(self._read(attachment, span))
                if partitions := recovery.to_confirm:
                    reads.create_task(self._confirm(recovery, partitions))
        except TimeoutError:
            if recovery.answer is not None:
                return
            raise unavailable("the broker cannot be reached, so missed messages cannot be read") from None

    def read_more(self, attachment: Attachment, reads: set[asyncio.Task[None]]) -> None:
        """Do the reads of a further round in the background, and add them to a set of running reads."""
        for span in attachment.recovery.to_read():
            read = self._host.tasks.spawn(self._read(attachment, span), name="read for a slow client")
            reads.add(read)
            read.add_done_callback(reads.discard)

    async def _read(self, attachment: Attachment, span: ReadSpan) -> None:
        recovery = attachment.recovery
        recovery.found(span, await self._reads.read(span))
        attachment.progress.set()
        if recovery.answer is not None and recovery.answer.gap is not None:
            attachment.stop_waiting()

    async def _confirm(self, recovery: Recovery, partitions: Collection[int]) -> None:
        heads = await self._reads.heads(partitions)
        for partition in partitions:
            recovery.confirmed(heads[partition])

    async def _replay(self, attachment: Attachment) -> None:
        connection, recovery = attachment.connection, attachment.recovery
        reads: set[asyncio.Task[None]] = set()
        try:
            while not connection.closed:
                await self._host.pacer.wait_turn()
                self._caches.expire()
                due = recovery.take(max_messages=STEP_MESSAGES, max_bytes=STEP_BYTES)
                self.read_more(attachment, reads)
                if due:
                    await self._send(connection, due)
                elif self._go_live(attachment):
                    return
                else:
                    await self._attachments.wait_for_progress(attachment)
        finally:
            self._attachments.remove(connection)
            for read in reads:
                read.cancel()

    def _go_live(self, attachment: Attachment) -> bool:
        """End the replay if nothing is left to send. One step of the event loop, so that no record arrives between."""
        connection, recovery = attachment.connection, attachment.recovery
        if not recovery.settled:
            return False
        if recovery.answer is not None and recovery.answer.gap is None:
            self._host.fanout.send(connection, server_messages.pos(recovery.position()))
        self._attachments.remove(connection)
        return True

    def room_for(self, size: int) -> int:
        """Return how many of some bytes fit into the outbox of a client that has read everything."""
        limit = self._host.limits.outbox_bytes
        return size if limit is None else min(size, limit // 2)

    async def _send(self, connection: Connection, due: list[Due | Lost]) -> None:
        """Send in steps that fit into the outbox, however small it is."""
        room, size = self.room_for(STEP_BYTES), 0
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
            elif connection in self._senders.excluded(item.record.payload):
                continue
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
    def replay_limits(self) -> ReplayLimits:
        """Limits of one replay."""
        limits = self._host.limits
        return ReplayLimits(
            messages=limits.replay_messages or _UNBOUNDED,
            bytes=limits.replay_bytes or _UNBOUNDED,
            held_bytes=limits.outbox_bytes or _UNBOUNDED,
        )


def _concerns(item: Due | Lost, wanted: Mapping[int, WantedTopics]) -> bool:
    """Return whether a connection that wants these topics must receive an item."""
    if isinstance(item, Lost):
        return item.head.partition in wanted
    topics, topic = wanted.get(item.partition, ()), item.record.topic
    return topics(topic) if callable(topics) else topic in topics


def unavailable(why: str) -> Refused:
    """Return the error for a request that the client should repeat a little later, at a random time."""
    retry_in_s = round(random.uniform(_RETRY_IN_S / 5, _RETRY_IN_S), 3)  # noqa: S311 -- no secret
    return Refused("unavailable", why, temporary=True, retry_in_s=retry_in_s)
