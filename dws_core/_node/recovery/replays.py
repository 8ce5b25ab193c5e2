"""Filters whose past is being sent. Their live messages wait, and those of other filters of the connection do not."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from typing import Final

from dws_core._errors import InvalidMessage
from dws_core._log.records import GapReason, Head, Record
from dws_core._log.replay import Replay
from dws_core._node.connection.connection import Connection
from dws_core._node.recovery.attachments import Attachment
from dws_core._topics.interface import TopicMatcher
from dws_core._topics.router import Router
from dws_core._wire.frames import Frame
from dws_core._wire.server_messages import RequestId

_MAX_REPLAYS: Final = 8
"""Maximum number of replays of one connection at the same time."""


class FilterReplay(Attachment):
    """The replay of one filter of a connection.

    Attributes:
        filter: The filter.
        id: Id of the `subscribe`, which marks the frames of the replay.
        replay: Decides what is sent.
        first: The first frames of the past, if they are encoded already.
        turn: Held while frames are sent, by one replay of the connection at a time.
    """

    __slots__ = ("filter", "first", "id", "replay", "turn")

    def __init__(self, connection: Connection, replay: Replay, filter_: str, request_id: RequestId) -> None:
        super().__init__(connection, replay.recovery)
        self.replay: Replay = replay
        self.filter: str = filter_
        self.id: RequestId = request_id
        self.first: list[Frame] = []
        self.turn: asyncio.Lock = asyncio.Lock()


class Replays:
    """The replays in progress on this node. Usually empty, which delivery checks with a single truth test.

    Args:
        matcher: The topic language.
    """

    def __init__(self, matcher: TopicMatcher) -> None:
        self._router: Router[FilterReplay] = Router(matcher)
        self._all: dict[Connection, dict[RequestId, FilterReplay]] = {}

    def __len__(self) -> int:
        return len(self._router)

    def __contains__(self, replay: object) -> bool:
        return isinstance(replay, FilterReplay) and self._of(replay.connection).get(replay.id) is replay

    def add(self, replay: FilterReplay) -> None:
        """Hold back live messages of a new filter from now on.

        Raises:
            InvalidMessage: A replay of the connection has the same id.
        """
        others = self._all.setdefault(replay.connection, {})
        if replay.id in others:
            raise InvalidMessage("the id belongs to a replay in progress.", fix="use another id for each request")
        for other in others.values():
            replay.turn = other.turn
        others[replay.id] = replay
        self._router.subscribe(replay, replay.filter)

    def remove(self, replay: FilterReplay) -> None:
        """End a replay. A replay that has ended is no error."""
        if replay in self:
            others = self._all[replay.connection]
            del others[replay.id]
            if not others:
                del self._all[replay.connection]
            self._router.remove(replay)
            replay.ended.set()
            replay.progress.set()
            replay.stop_waiting()

    def forget(self, connection: Connection) -> None:
        """End all replays of a connection."""
        for replay in tuple(self._of(connection).values()):
            self.remove(replay)

    def filters(self, connection: Connection) -> AbstractSet[str]:
        """Return the filters of a connection whose past is being sent."""
        return {replay.filter for replay in self._of(connection).values()}

    def discard(self, connection: Connection, filter_: str) -> None:
        """End all replays of a filter. A filter without replay is no error."""
        for replay in tuple(self._of(connection).values()):
            if replay.filter == filter_:
                self.remove(replay)

    async def room(self, connection: Connection) -> None:
        """Wait until a connection may have one more replay."""
        while len(replays := self._of(connection)) >= _MAX_REPLAYS:
            await next(iter(replays.values())).ended.wait()

    async def ended(self, connection: Connection) -> None:
        """Wait until a connection has no replays."""
        while replays := self._of(connection):
            await next(iter(replays.values())).ended.wait()

    def on_record(self, partition: int, epoch: str, record: Record) -> None:
        """Pass a live record to the replays whose filters match. The partition's cache has been advanced before."""
        for replay in self._router.receivers(record.topic):
            replay.recovery.on_record(partition, epoch, record)

    def on_discontinuity(self, reason: GapReason, head: Head) -> None:
        """Pass a loss of the tail to the replays concerned."""
        for replays in self._all.values():
            for replay in replays.values():
                if head.partition in replay.recovery.partitions:
                    replay.on_discontinuity(reason, head)

    def _of(self, connection: Connection) -> dict[RequestId, FilterReplay]:
        return self._all.get(connection, {})
