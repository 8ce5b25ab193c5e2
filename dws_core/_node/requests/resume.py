"""Requests that concern all filters of a connection or none: `connect`, `subscribe` without past, and `history`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Final

from dws_core._errors import CodecError, InvalidMessage
from dws_core._log.recovery import Answer
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.senders import Senders
from dws_core._node.pacing import Pacer
from dws_core._node.recovery.attach import Attach
from dws_core._node.recovery.attachments import Attachments
from dws_core._node.recovery.cursors import Cursors
from dws_core._node.recovery.history import HistoryReader
from dws_core._node.recovery.interest import Interest
from dws_core._node.sending.fanout import Fanout
from dws_core._wire import server_messages
from dws_core._wire.codecs import Codec
from dws_core._wire.connect_request import ConnectRequest
from dws_core._wire.cursor import Position
from dws_core._wire.message import JSON
from dws_core._wire.server_messages import RequestId

BYTES_PER_MESSAGE: Final = 65_536
"""Number of bytes read for a `history` that count as one message against the rate."""

MESSAGES_PER_RESUME: Final = 10
"""Number of messages as which a request with a cursor counts against the rate, in addition to itself."""


class Resume:
    """Carries out requests that `Dispatcher` has checked.

    Args:
        interest: The topics that connections want.
        cursors: Cursors of live connections.
        attach: Recovers connections from their cursors.
        attachments: The recovering connections.
        senders: Keeps the client ids.
        history: Reads the last messages of a topic.
        fanout: Sends the replies.
        pacer: Limits how many clients resume per tick.
        ping_s: Interval of the server's WebSocket pings, in seconds, for the reply to `connect`.
    """

    def __init__(
        self,
        *,
        interest: Interest,
        cursors: Cursors,
        attach: Attach,
        attachments: Attachments,
        senders: Senders,
        history: HistoryReader,
        fanout: Fanout,
        pacer: Pacer,
        ping_s: float,
    ) -> None:
        self._interest = interest
        self._cursors = cursors
        self._attach = attach
        self._attachments = attachments
        self._senders = senders
        self._history = history
        self._fanout = fanout
        self._pacer = pacer
        self._ping_s = ping_s

    async def replay_ended(self, connection: Connection) -> None:
        """Wait until the replay of a connection's `connect` has ended. Its filters change only after that."""
        await self._attachments.ended(connection)

    def check_first(self, connection: Connection) -> None:
        """Refuse a second `connect`.

        Raises:
            InvalidMessage: The connection has already sent `connect`.
        """
        if self._senders.has_connected(connection):
            raise InvalidMessage(
                "the connection has already sent connect.", fix="use subscribe and unsubscribe to change filters"
            )

    async def connect(self, connection: Connection, request: ConnectRequest, request_id: RequestId) -> None:
        """Subscribe to all filters, resume from the cursor, reply with `connected`.

        Raises:
            Refused: The broker cannot be reached in time. The connection may send `connect` again.
        """
        cursor = request.cursor
        if not await self._may_resume(connection, cursor, request.filters):
            return
        self._senders.on_connect(connection, request.client_id)

        def reply(cursor: Mapping[int, Position], recovered: bool | None) -> None:
            self._cursors.keep_updated(connection)
            message = server_messages.connected(
                request_id, conn_id=connection.id, ping_s=self._ping_s, cursor=cursor, recovered=recovered
            )
            self._fanout.send(connection, message)

        def on_answer(answer: Answer) -> None:
            reply(answer.cursor, answer.gap is None)

        if cursor is None:
            for filter_ in request.filters:
                connection.topics.add(filter_)
            reply(self._cursors.of(connection), None)
            return
        try:
            wanted = self._interest.wanted(connection, {*connection.topics, *request.filters})
            await self._attach.attach(connection, cursor, wanted, request.filters, on_answer)
        except BaseException:
            self._senders.on_connect_failed(connection)  # it may send connect again
            raise

    def subscribe(self, connection: Connection, filter_: str, request_id: RequestId) -> None:
        """Add a filter that starts with new messages, reply with `ack`."""
        if not connection.closed:
            connection.topics.add(filter_)
            self._acknowledge(connection, request_id)

    async def history(self, connection: Connection, topic: str, limit: JSON, request_id: RequestId) -> None:
        """Reply with the last messages of a topic. Waits until the client has read its earlier replies.

        Raises:
            InvalidMessage: The limit is not a positive integer.
            BrokerUnavailable: The broker keeps no history, or it cannot be read.
        """
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise InvalidMessage("member 'limit' of history must be a positive integer.")
        await connection._caught_up()
        await self._pacer.wait_turn()
        stored = await self._history.read(topic, limit)
        connection._charge(stored.read_bytes // BYTES_PER_MESSAGE)
        messages, skipped = [(message.data, message.pos, message.sender) for message in stored], stored.skipped
        reply = partial(server_messages.history, request_id, topic=topic, cursor=stored.cursor)
        try:
            self._fanout.send(connection, reply(messages=messages, skipped=skipped))
        except CodecError:
            fitting = [message for message in messages if _can_encode(connection.codec, message)]
            skipped += len(messages) - len(fitting)
            self._fanout.send(connection, reply(messages=fitting, skipped=skipped))

    async def _may_resume(
        self, connection: Connection, cursor: Mapping[int, Position] | None, filters: Collection[str]
    ) -> bool:
        """Wait for a turn if there is a cursor. Return False if the client has disconnected in the meantime.

        Raises:
            Refused: The client resumes too often.
        """
        if cursor is not None:
            connection._count(MESSAGES_PER_RESUME)
            await self._pacer.wait_turn()
            await self._attach.prepare(cursor, self._interest.wanted(connection, {*connection.topics, *filters}))
        return not connection.closed

    def _acknowledge(self, connection: Connection, request_id: RequestId) -> None:
        if request_id is None:
            return
        cursor = self._cursors.of(connection)
        if cursor:
            self._cursors.keep_updated(connection)
        self._fanout.send(connection, server_messages.ack(request_id, cursor=cursor or None))


def _can_encode(codec: Codec, value: JSON) -> bool:
    try:
        codec.encode([value])
    except CodecError:
        return False
    return True


def over_limit(limit: int | None, existing: Collection[str], new: Iterable[str]) -> bool:
    """Return whether new filters would exceed a connection's limit."""
    return limit is not None and len({*existing, *new}) > max(limit, len(existing))
