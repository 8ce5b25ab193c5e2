"""Cursors of live connections: in replies, and in `pos` messages while their topics are quiet."""

from __future__ import annotations

from collections.abc import Collection

from dws_core._log.contract import LogBroker
from dws_core._log.recovery import watermarks
from dws_core._node.connection.connection import Connection
from dws_core._node.recovery.interest import Interest
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._node.sending.fanout import Fanout
from dws_core._wire import server_messages
from dws_core._wire.cursor import Position
from dws_core._wire.frames import Frame, encode_frame


class Cursors:
    """Computes cursors from the node's watermarks in the partitions that a connection needs.

    Args:
        caches: The node's view of the logs.
        interest: The topics that connections want.
        fanout: Sends `pos` messages.
        broker: The log broker. If it cannot recover missed messages, there are no cursors.
    """

    def __init__(self, caches: LogCaches, interest: Interest, fanout: Fanout, broker: LogBroker) -> None:
        self._caches = caches
        self._interest = interest
        self._fanout = fanout
        self._broker = broker
        self._holders: dict[Connection, None] = {}
        self._sent: dict[int, Position] = {}

    def keep_updated(self, connection: Connection) -> None:
        """Send `pos` messages to a connection from now on, because it holds a cursor."""
        if self._broker.capabilities.recovery:
            self._holders[connection] = None

    def forget(self, connection: Connection) -> None:
        """Stop updating a connection. A connection without a cursor is no error."""
        self._holders.pop(connection, None)

    def holds_cursor(self, connection: Connection) -> bool:
        """Return whether a connection has received a cursor."""
        return connection in self._holders

    def of(self, connection: Connection) -> dict[int, Position]:
        """Return the cursor of a connection that has received every message so far."""
        if not self._broker.capabilities.recovery:
            return {}
        return watermarks(self._caches, self._interest.partitions(connection))

    def send_updates(self, *, exclude: Collection[Connection] = ()) -> None:
        """Send a `pos` to every connection whose partitions have advanced since the last call.

        Args:
            exclude: Connections whose cursor is managed elsewhere, because they are recovering.
        """
        current = watermarks(self._caches, self._caches)
        moved = {partition for partition, position in current.items() if self._sent.get(partition) != position}
        self._sent = current
        frames: dict[tuple[str, frozenset[int]], Frame] = {}
        for connection in list(self._holders):
            partitions = self._interest.partitions(connection)
            if connection in exclude or moved.isdisjoint(partitions):
                continue
            key = connection.codec.name, partitions
            if key not in frames:
                message = server_messages.pos(watermarks(self._caches, partitions))
                frames[key] = encode_frame(connection.codec, message)
            self._fanout.push_one(connection, frames[key])
