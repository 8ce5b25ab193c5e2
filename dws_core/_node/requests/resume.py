"""What clients ask about the past: `connect`, `subscribe` with a cursor, `history`; and the cursors of the answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any
from weakref import WeakSet

from dws_core._errors import InvalidMessage
from dws_core._log.contract import LogBroker
from dws_core._log.recovery import Answer
from dws_core._node.connection.connection import Connection
from dws_core._node.recovery.attach import Attach
from dws_core._node.recovery.cursors import Cursors
from dws_core._node.recovery.history import HistoryReader
from dws_core._node.recovery.interest import Interest
from dws_core._wire.cursor import Position, format_cursor
from dws_core._wire.frames import encode_frame
from dws_core._wire.message import JSON


class Resume:
    """Carries out what has been checked; see `Dispatcher` for the checks.

    Args:
        broker: Where the logs are.
        interest: What connections want.
        positions: Where live connections stand.
        attach: Brings connections from their cursors to live delivery.
        history: Reads the last messages of a topic.
        ping_s: Seconds between the WebSocket pings of the server.
    """

    def __init__(
        self,
        broker: LogBroker,
        interest: Interest,
        positions: Cursors,
        attach: Attach,
        history: HistoryReader,
        ping_s: float,
    ) -> None:
        self._broker = broker
        self._interest = interest
        self._positions = positions
        self._attach = attach
        self._history = history
        self._ping_s = ping_s
        self._greeted: WeakSet[Connection] = WeakSet()

    async def live(self, connection: Connection) -> None:
        """Wait until the replay of a connection has ended: changes of its filters come after it."""
        await self._attach.attachments.ended(connection)

    def check_first(self, connection: Connection) -> None:
        """Refuse a second `connect`.

        Raises:
            InvalidMessage: The connection was answered by `connected` before.
        """
        if connection in self._greeted:
            raise InvalidMessage("a connection sends connect once.", fix="use subscribe and unsubscribe from now on")

    async def connect(
        self,
        connection: Connection,
        filters: Iterable[str],
        cursor: Mapping[int, Position] | None,
        request_id: str | int | None,
    ) -> None:
        """Subscribe to all filters, resume from the cursor, answer by `connected`."""
        if not await self._still_there(connection, cursor):
            return
        frame: dict[str, Any] = {"type": "connected", "conn_id": connection.id, "ping_s": self._ping_s}
        if request_id is not None:
            frame["id"] = request_id
        self._greeted.add(connection)
        for filter_ in filters:
            connection.topics.add(filter_)
        self._positions.follow(connection)
        if cursor is None:
            self._answer(connection, frame, self._positions.cursor(connection), None)
            return

        def on_answer(answer: Answer) -> None:
            cursor = answer.cursor if self._broker.capabilities.recovery else {}
            self._answer(connection, frame, cursor, answer)

        wanted = self._interest.wanted(connection, connection.topics)
        await self._attach.attach(connection, cursor, wanted, on_answer)

    async def subscribe(
        self,
        connection: Connection,
        filter_: str,
        cursor: Mapping[int, Position] | None,
        request_id: str | int | None,
    ) -> None:
        """Add a filter, resume its partitions from the cursor, answer by `ack`.

        Raises:
            InvalidMessage: There is a cursor, and the connection has a filter in those partitions already.
        """
        if not await self._still_there(connection, cursor):
            return
        frame: dict[str, Any] = {"type": "ack", "id": request_id}
        if cursor is None:
            connection.topics.add(filter_)
            self._acknowledge(connection, frame)
            return
        others = [other for other in connection.topics if other != filter_]
        followed = self._interest.partitions_of(others)
        new = self._interest.partitions_of((filter_,))
        if filter_ in connection.topics or not followed.isdisjoint(new):
            raise InvalidMessage(
                "a cursor needs partitions in which the connection has no filter yet.",
                fix="resume several filters by one connect message",
            )
        wanted = self._interest.wanted(connection, (filter_,))
        wanted = {partition: topics for partition, topics in wanted.items() if partition not in followed}
        connection.topics.add(filter_)
        self._positions.follow(connection)

        def on_answer(answer: Answer) -> None:
            if request_id is not None:
                recovers = self._broker.capabilities.recovery
                whole = {**self._positions.cursor(connection), **answer.cursor} if recovers else {}
                self._answer(connection, frame, whole, answer)

        await self._attach.attach(connection, cursor, wanted, on_answer)

    async def history(self, connection: Connection, topic: str, limit: JSON, request_id: str | int | None) -> None:
        """Answer by the last messages of a topic.

        Raises:
            InvalidMessage: The limit is not a positive integer.
            BrokerUnavailable: The broker keeps no history, or it cannot be read.
        """
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise InvalidMessage("member 'limit' of history must be a positive integer.")
        past = await self._history.read(topic, limit)
        frame: dict[str, Any] = {"type": "history", "topic": topic}
        if request_id is not None:
            frame["id"] = request_id
        frame["messages"] = [{"data": message.data, "pos": message.pos} for message in past.messages]
        frame["cursor"] = past.cursor
        connection.push(encode_frame(connection.codec, frame))

    async def _still_there(self, connection: Connection, cursor: Mapping[int, Position] | None) -> bool:
        """Wait for a turn to resume; say whether the client is still there: one that is gone needs no replay."""
        if cursor is not None:
            await self._attach.turn()
        return not connection.closed

    def _acknowledge(self, connection: Connection, frame: dict[str, Any]) -> None:
        if frame["id"] is None:
            return
        if cursor := self._positions.cursor(connection):
            self._positions.follow(connection)
            frame["cursor"] = format_cursor(cursor)
        connection.push(encode_frame(connection.codec, frame))

    def _answer(
        self,
        connection: Connection,
        frame: dict[str, Any],
        cursor: Mapping[int, Position],
        answer: Answer | None,
    ) -> None:
        frame["cursor"] = format_cursor(cursor)
        if answer is not None:
            frame["recovered"] = answer.gap is None
        connection.push(encode_frame(connection.codec, frame))


def over_limit(limit: int | None, known: Collection[str], new: Iterable[str]) -> bool:
    """Say whether a connection would have more filters than it may."""
    return limit is not None and len({*known, *new}) > max(limit, len(known))
