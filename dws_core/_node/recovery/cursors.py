"""Where connections stand: the cursors of answers, and `pos` frames on quiet topics."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dws_core._log.recovery import watermarks
from dws_core._node.connection.connection import Connection
from dws_core._node.recovery.interest import Interest
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._wire.cursor import Position, format_cursor
from dws_core._wire.frames import Frame, encode_frame


class Cursors:
    """The cursors of live connections: the node's watermarks, in the partitions that they need.

    Args:
        logs: What the node knows.
        interest: What connections want.
        recovers: Whether the broker keeps anything: without it there is nothing to stand at.
    """

    def __init__(self, logs: LogCaches, interest: Interest, *, recovers: bool) -> None:
        self._logs = logs
        self._interest = interest
        self._recovers = recovers
        self._followers: dict[Connection, None] = {}
        self._told: dict[int, Position] = {}

    def follow(self, connection: Connection) -> None:
        """Keep the cursor of a connection young from now on: it was told one."""
        if self._recovers:
            self._followers[connection] = None

    def forget(self, connection: Connection) -> None:
        """The connection is gone; one that is not there is no error."""
        self._followers.pop(connection, None)

    def follows(self, connection: Connection) -> bool:
        """Say whether a connection was told a cursor."""
        return connection in self._followers

    def cursor(self, connection: Connection) -> dict[int, Position]:
        """Return the cursor of a connection that has been sent everything."""
        return watermarks(self._logs, self._interest.partitions(connection)) if self._recovers else {}

    def send_updates(self, *, exclude: Collection[Connection] = ()) -> None:
        """Send a `pos` to every follower whose logs have moved on since the last time.

        Args:
            exclude: Connections whose cursor is somebody else's business.
        """
        now = watermarks(self._logs, self._logs)
        moved = {partition for partition, position in now.items() if self._told.get(partition) != position}
        self._told = now
        frames: dict[tuple[str, frozenset[int]], Frame] = {}
        for connection in list(self._followers):
            partitions = self._interest.partitions(connection)
            if connection in exclude or moved.isdisjoint(partitions):
                continue
            key = connection.codec.name, partitions
            if key not in frames:
                frames[key] = pos_frame(connection, watermarks(self._logs, partitions))
            connection.push(frames[key])


def pos_frame(connection: Connection, cursor: dict[int, Position]) -> Frame:
    """Return a `pos` frame for connections of this one's codec."""
    frame: dict[str, Any] = {"type": "pos", "cursor": format_cursor(cursor)}
    return encode_frame(connection.codec, frame)
