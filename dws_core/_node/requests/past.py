"""Requests for the past of one filter: `subscribe` with `last` or a cursor."""

from __future__ import annotations

from collections.abc import Mapping

from dws_core._errors import InvalidMessage
from dws_core._node.connection.connection import Connection
from dws_core._node.pacing import Pacer
from dws_core._node.recovery.attach import Attach
from dws_core._node.recovery.history import Found
from dws_core._node.recovery.interest import Interest
from dws_core._node.recovery.replayer import Replayer
from dws_core._node.recovery.replays import Replays
from dws_core._node.recovery.shared_searches import SharedSearches
from dws_core._node.requests.resume import BYTES_PER_MESSAGE, MESSAGES_PER_RESUME
from dws_core._wire.cursor import Position
from dws_core._wire.past_request import PastRequest
from dws_core._wire.server_messages import RequestId


class Past:
    """Carries out requests that `Dispatcher` has checked.

    Args:
        searches: Finds the last messages of topics.
        attach: Prepares recoveries from a cursor.
        interest: The topics that filters want.
        replays: The replays in progress.
        replayer: Sends the past of filters.
        pacer: Limits how many clients subscribe with a past per tick.
    """

    def __init__(
        self,
        *,
        searches: SharedSearches,
        attach: Attach,
        interest: Interest,
        replays: Replays,
        replayer: Replayer,
        pacer: Pacer,
    ) -> None:
        self._searches = searches
        self._attach = attach
        self._interest = interest
        self._replays = replays
        self._replayer = replayer
        self._pacer = pacer

    async def ended(self, connection: Connection) -> None:
        """Wait until a connection has no replays of single filters."""
        await self._replays.ended(connection)

    async def subscribe(
        self, connection: Connection, filter_: str, request: PastRequest, request_id: RequestId
    ) -> None:
        """Add a filter, reply with `ack`, send the past, then live messages.

        Raises:
            InvalidMessage: The request has no id, or a replay of the connection has the same id.
            BrokerUnavailable: The broker cannot be read.
            Refused: The client resumes too often.
        """
        if request_id is None:
            raise InvalidMessage("a subscribe with 'last' or 'cursor' needs an id.", fix="add a member 'id'")
        await self._replays.room(connection)
        await connection._caught_up()
        await self._pacer.wait_turn()
        past = await self._find(connection, filter_, request)
        if not connection.closed:
            await self._replayer.replay(connection, filter_, request_id, past)

    async def _find(self, connection: Connection, filter_: str, request: PastRequest) -> Mapping[int, Position] | Found:
        if request.cursor is not None:
            connection._count(MESSAGES_PER_RESUME)
            await self._attach.prepare(request.cursor, self._interest.wanted_by(filter_))
            return request.cursor
        if request.last is None or not self._attach.recovers:
            return {}
        found = await self._searches.last(filter_, request.last)
        connection._charge(found.read_bytes // BYTES_PER_MESSAGE)
        return found
