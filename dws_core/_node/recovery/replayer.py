"""Sends the past of new filters. The I/O around `dws_core._log.replay`.

The client sets the pace, as in `attach`. The replays of one connection take turns, so that together they do not fill the
outbox either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dws_core._log.recovery import Due, Recovery
from dws_core._log.replay import Replay
from dws_core._log.tail import Lost
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.host import ConnectionHost
from dws_core._node.connection.senders import Senders
from dws_core._node.recovery.attach import STEP_BYTES, STEP_MESSAGES, Attach, unavailable
from dws_core._node.recovery.attachments import Attachments
from dws_core._node.recovery.cursors import Cursors
from dws_core._node.recovery.history import Found
from dws_core._node.recovery.interest import Interest
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._node.recovery.replays import FilterReplay, Replays
from dws_core._node.sending.shared_message import PastEncoder
from dws_core._wire import server_messages
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import Position
from dws_core._wire.envelope import has_attributes
from dws_core._wire.frames import Frame, encode_frame
from dws_core._wire.server_messages import RequestId

_FIRST_BYTES: Final = 65_536
"""Maximum size of a past that is sent at once with its answer."""


class Replayer:
    """Sends the past of new filters.

    Args:
        attach: Reads the logs, and sends frames at the client's pace.
        host: Fan-out, tasks, pacer and counters of the node.
        caches: The node's view of the logs.
        interest: The topics that filters want.
        cursors: Cursors of live connections.
        attachments: Wakes replays that wait until the log advances.
        replays: The replays in progress.
        senders: The senders of messages that exclude their sender.
        codecs: The node's codecs by name.
    """

    def __init__(
        self,
        attach: Attach,
        *,
        host: ConnectionHost[Any],
        caches: LogCaches,
        interest: Interest,
        cursors: Cursors,
        attachments: Attachments,
        replays: Replays,
        senders: Senders,
        codecs: Mapping[str, Codec],
    ) -> None:
        self._attach = attach
        self._host = host
        self._caches = caches
        self._interest = interest
        self._cursors = cursors
        self._attachments = attachments
        self._replays = replays
        self._senders = senders
        self._codecs = codecs

    async def replay(
        self,
        connection: Connection,
        filter_: str,
        request_id: RequestId,
        past: Mapping[int, Position] | Found,
    ) -> None:
        """Send the past of a filter, then its live messages. Return once the request is answered.

        Args:
            connection: A connection that is not recovering.
            filter_: The new filter.
            request_id: Id of the `subscribe`.
            past: The cursor after which the past begins, or the last records of the topic.

        Raises:
            InvalidMessage: A replay of the connection has the same id.
            Refused: The broker cannot be reached in time, or too many requests wait for it, or the filter was removed.
        """
        await connection._caught_up()
        replay = FilterReplay(connection, self._decide(filter_, past), filter_, request_id)
        if self._send_at_once(replay):
            return
        self._replays.add(replay)
        try:
            if replay.recovery.answer is None:
                await self._attach.answer(replay)
            async with replay.turn:
                await connection._caught_up()
                self._begin(replay)
        except BaseException:
            self._replays.remove(replay)
            raise

    def _decide(self, filter_: str, past: Mapping[int, Position] | Found) -> Replay:
        self._caches.expire()
        records: list[Due] = []
        if isinstance(past, Found):
            records = [Due(past.partition, past.epoch, record) for record in past.records]
            past = {past.partition: Position(past.partition, past.epoch, past.until)}
        wanted, limits = self._interest.wanted_by(filter_), self._attach.replay_limits
        return Replay(Recovery(past, wanted, self._caches, recovers=self._attach.recovers, limits=limits), records)

    def _send_at_once(self, replay: FilterReplay) -> bool:
        """Send everything in one step of the event loop, if it is short and the logs need not be read."""
        connection = replay.connection
        if replay.recovery.answer is None or connection.closed or self._replays.filters(connection):
            return False
        answer, replay.first = self._answer(replay), list(self._frames(replay, _FIRST_BYTES))
        if not replay.replay.settled or sum(len(frame.payload) for frame in replay.first) > self._attach.room_for(
            _FIRST_BYTES
        ):
            return False
        self._host.fanout.push_each(connection, [*answer, *replay.first])
        self._go_live(replay)
        return True

    def _answer(self, replay: FilterReplay) -> list[Frame]:
        codec, answer = replay.connection.codec, replay.replay.answer()
        cursor = answer.cursor if self._attach.recovers else {}
        ack = server_messages.ack(replay.id, cursor=cursor, recovered=answer.gap is None)
        if answer.gap is None:
            return [encode_frame(codec, ack)]
        gap = server_messages.gap((replay.filter,), answer.gap, cursor, replay=replay.id)
        return [encode_frame(codec, ack), encode_frame(codec, gap)]

    def _begin(self, replay: FilterReplay) -> None:
        """Send the answer, and the past in the background.

        Raises:
            Refused: The filter was removed in the meantime.
        """
        if replay not in self._replays:
            raise unavailable("the filter was removed before its past was sent")
        self._host.fanout.push_each(replay.connection, self._answer(replay))
        first, replay.first = replay.first, []
        self._host.tasks.spawn(self._run(replay, first), name=f"replay to connection {replay.connection.id!r}")

    async def _run(self, replay: FilterReplay, frames: list[Frame]) -> None:
        reads: set[asyncio.Task[None]] = set()
        try:
            while replay in self._replays:
                async with replay.turn:
                    await self._send(replay, frames)
                await self._host.pacer.wait_turn()
                self._caches.expire()
                frames = list(self._frames(replay))
                self._attach.read_more(replay, reads)
                if frames:
                    continue
                if self._go_live(replay):
                    return
                await self._attachments.wait_for_progress(replay)
        finally:
            self._replays.remove(replay)
            for read in reads:
                read.cancel()

    def _go_live(self, replay: FilterReplay) -> bool:
        """End the replay if nothing is left to send. One step of the event loop, so that no record arrives between."""
        if not replay.replay.settled:
            return False
        connection = replay.connection
        self._replays.remove(replay)
        self._host.router.subscribe(connection, replay.filter)
        self._cursors.keep_updated(connection)
        self._host.fanout.send(connection, server_messages.replayed(replay.id, self._cursors.of(connection)))
        return True

    async def _send(self, replay: FilterReplay, frames: list[Frame]) -> None:
        """Send in steps that fit into the outbox, until the replay is ended."""
        room, size = self._attach.room_for(STEP_BYTES), 0
        for frame in frames:
            if size and size + len(frame) > room:
                await replay.connection._caught_up()
                size = 0
            if replay not in self._replays:
                return
            self._host.fanout.push_one(replay.connection, frame)
            size += len(frame)
        await replay.connection._caught_up()

    def _frames(self, replay: FilterReplay, max_bytes: int = STEP_BYTES) -> Iterator[Frame]:
        """Yield the frames of the next step."""
        connection, codec = replay.connection, replay.connection.codec
        encoder = PastEncoder(codec, self._codecs, replay.id)
        for item in replay.replay.take(max_messages=STEP_MESSAGES, max_bytes=max_bytes):
            if isinstance(item, Lost):
                head = item.head
                cursor = {head.partition: Position(head.partition, head.epoch, head.offset)}
                gap = server_messages.gap((replay.filter,), item.reason, cursor, replay=replay.id)
                yield encode_frame(codec, gap)
                continue
            payload = item.record.payload
            if has_attributes(payload) and connection in self._senders.excluded(payload):
                continue
            if (frame := encoder.frame(item)) is not None:
                self._host.counters.deliveries += 1
                yield frame
