"""Carries out the commands of applications on the connections of this node."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Mapping

from dws_core._errors import BrokerError, DWSError
from dws_core._log.backoff import Backoff
from dws_core._log.policy import COMMANDS_HISTORY
from dws_core._log.records import Head, Record
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.registry import ConnectionRegistry
from dws_core._node.recovery.history import HistoryReader
from dws_core._node.requests.refresh import Removal
from dws_core._tasks import Tasks
from dws_core._wire.codecs import Codec
from dws_core._wire.commands import Command, Disconnect, read_command
from dws_core._wire.cursor import parse_position
from dws_core._wire.envelope import open_envelope
from dws_core._wire.message import JSON
from dws_core._wire.node_topics import COMMANDS

logger = logging.getLogger("dws")


class Commands:
    """Carries out commands from the log, also those that this node missed while it was cut off.

    Args:
        connections: The connections of this node.
        removal: Removes filters.
        codecs: The node's codecs by name.
        history: Reads missed commands.
        tasks: Runs the reads in the background.
        partition: Partition of the commands.

    Attributes:
        count: Number of commands that were carried out.
    """

    def __init__(
        self,
        connections: ConnectionRegistry,
        *,
        removal: Removal,
        codecs: Mapping[str, Codec],
        history: HistoryReader,
        tasks: Tasks,
        partition: int,
    ) -> None:
        self._connections = connections
        self._removal = removal
        self._codecs = codecs
        self._history = history
        self._tasks = tasks
        self._partition = partition
        self._recent: deque[Command] = deque(maxlen=COMMANDS_HISTORY.size)
        self.count = 0

    def on_record(self, record: Record) -> None:
        """Carry out the command of a record. A record of another version is logged."""
        codec, encoded = open_envelope(record.payload)
        self._read_and_carry_out(self._codecs[codec].decode(encoded))

    def on_discontinuity(self, seen: Head, head: Head) -> None:
        """Find the commands that the node's tail has missed, in the background.

        Args:
            seen: Last position of the tail in a partition before it lost its place. Only the partition of the commands
                matters.
            head: Position after which the tail continues.
        """
        if head.partition == self._partition and self._history.is_kept:
            self._tasks.spawn(self._catch_up(seen, head), name="missed commands")

    def overtook(self, connection: Connection, count: int) -> None:
        """Carry out the commands after the first `count` ones on a connection whose handshake they have overtaken."""
        for command in tuple(self._recent)[count - self.count :] if count < self.count else ():
            if connection in self._receivers(command):
                self._apply(command, connection)

    async def _catch_up(self, seen: Head, head: Head) -> None:
        backoff = Backoff(first_s=0.1, max_s=5.0)
        while True:
            try:
                stored = await self._history.read(COMMANDS, COMMANDS_HISTORY.size, fresh=True)
                break
            except BrokerError as error:
                logger.warning("missed commands cannot be read yet: %s", error)
                await asyncio.sleep(backoff.next_s())
        for message in stored:
            position = parse_position(message.pos)
            is_live = position.epoch != head.epoch or position.offset > head.offset  # the tail delivers it
            is_known = position.epoch == seen.epoch and position.offset <= seen.offset
            if not (is_live or is_known):
                self._read_and_carry_out(message.data)

    def _read_and_carry_out(self, data: JSON) -> None:
        try:
            self._carry_out(read_command(data))
        except DWSError as error:
            logger.warning("a command is ignored: %s", error)

    def _carry_out(self, command: Command) -> None:
        self.count += 1
        self._recent.append(command)
        for connection in self._receivers(command):
            self._apply(command, connection)

    def _apply(self, command: Command, connection: Connection) -> None:
        if isinstance(command, Disconnect):
            connection.disconnect(command.code, command.reason)
        elif command.topic in connection.topics:
            self._removal.remove(connection, (command.topic,), "unsubscribed")

    def _receivers(self, command: Command) -> Collection[Connection]:
        if isinstance(command, Disconnect) and command.conn_id is not None:
            return self._connections.by_id(command.conn_id)
        return self._connections.by_user(command.user or "")
