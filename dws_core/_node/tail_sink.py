"""From the log to the connections: records become shared messages in the fan-out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from dws_core._log.records import BrokerState, GapReason, Head, Offset, Record
from dws_core._node.asking.requester import Requester
from dws_core._node.asking.responder import Responder
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.registry import ConnectionRegistry
from dws_core._node.connection.senders import Senders
from dws_core._node.recovery.attachments import Attachments
from dws_core._node.recovery.attempts import Attempts
from dws_core._node.recovery.cursors import Cursors
from dws_core._node.recovery.interest import Interest
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._node.recovery.replays import Replays
from dws_core._node.requests.commands import Commands
from dws_core._node.sending.fanout import Fanout
from dws_core._node.sending.shared_message import SharedMessage
from dws_core._node.stats import Counters
from dws_core._topics.filters import is_reserved
from dws_core._topics.router import Router
from dws_core._wire import server_messages
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import Position
from dws_core._wire.envelope import has_attributes
from dws_core._wire.node_topics import ALL, COMMANDS, conn_id_of, is_request, user_of

logger = logging.getLogger("dws")


class NodeTailSink:
    """The node's `TailSink`: routes each record to the connections that want it.

    No method waits. A failure with one record or connection does not affect the others.

    Attributes:
        state: Last reported state of the connection to the broker.
        detail: One sentence about the state.
    """

    def __init__(
        self,
        *,
        router: Router[Connection],
        connections: ConnectionRegistry,
        codecs: Mapping[str, Codec],
        fanout: Fanout,
        counters: Counters,
        caches: LogCaches,
        interest: Interest,
        cursors: Cursors,
        attachments: Attachments,
        attempts: Attempts,
        commands: Commands,
        senders: Senders,
        requester: Requester,
        responder: Responder,
        replays: Replays,
    ) -> None:
        self._router = router
        self._connections = connections
        self._codecs = codecs
        self._fanout = fanout
        self._counters = counters
        self._caches = caches
        self._interest = interest
        self._cursors = cursors
        self._attachments = attachments
        self._attempts = attempts
        self._commands = commands
        self._senders = senders
        self._requester = requester
        self._responder = responder
        self._replays = replays
        self.state: BrokerState = "connecting"
        self.detail: str = ""

    def on_records(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        """Deliver records in order."""
        self._counters.received += len(records)
        self._caches.advance(partition, epoch, lo, hi, records)
        for record in records:
            try:
                self._deliver(partition, epoch, record)
            except Exception:
                logger.exception("a message on topic %r could not be delivered on this node", record.topic)
        if self._attachments or self._replays:
            self._attachments.on_advance()

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        """Send a `gap` to every connection that needs the partition."""
        logger.warning("partition %d lost its position (%s); messages may have been lost", partition, reason)
        self._commands.on_discontinuity(self._caches[partition].head, head)
        self._caches.reset(head)
        self._replays.on_discontinuity(reason, head)
        informed = self._attachments.on_discontinuity(reason, head)
        cursor = {partition: Position(partition, head.epoch, head.offset)}
        for connection in self._connections:
            if connection in informed:
                continue
            filters = self._interest.filters_in(connection, partition)
            if filters or self._has_cursor_in(connection, partition):
                self._fanout.send(connection, server_messages.gap(filters, reason, cursor))

    def on_control(self, sender: bytes, payload: bytes) -> None:
        """Do nothing: there are no control messages yet."""

    def on_state(self, state: BrokerState, detail: str) -> None:
        """Store the broker's state. Log a change, and repeat reads that have failed."""
        if state != self.state:
            self._attempts.on_state()
            level = logging.WARNING if state in ("degraded", "blocked") else logging.INFO
            logger.log(level, "broker is %s: %s", state, detail)
        self.state, self.detail = state, detail

    def receivers(self, topic: str) -> Sequence[Connection] | None:
        """Return the connections that receive messages of a topic, or None for a topic between nodes.

        It is the same object as long as they are the same connections.
        """
        if not is_reserved(topic):
            return self._router.receivers(topic)
        if topic == ALL:
            return self._connections.everyone
        if (conn_id := conn_id_of(topic)) is not None:
            return self._connections.by_id(conn_id)
        user = user_of(topic)
        return None if user is None else self._connections.by_user(user)

    def _has_cursor_in(self, connection: Connection, partition: int) -> bool:
        return self._cursors.holds_cursor(connection) and partition in self._interest.partitions(connection)

    def _deliver(self, partition: int, epoch: str, record: Record) -> None:
        receivers = self.receivers(record.topic)
        if receivers is None:
            self._take(record)
            return
        if self._replays and not is_reserved(record.topic):
            self._replays.on_record(partition, epoch, record)
        if receivers and has_attributes(record.payload) and (excluded := self._senders.excluded(record.payload)):
            receivers = tuple(receiver for receiver in receivers if receiver not in excluded)
        if receivers and self._attachments:
            receivers = self._attachments.hold_back(receivers, partition, epoch, record)
        if receivers:
            self._fanout.push(receivers, SharedMessage(partition, epoch, record, self._codecs))

    def _take(self, record: Record) -> None:
        """Take a record for the node itself."""
        if is_request(record.topic):
            self._responder.on_request(record)
        elif record.topic == COMMANDS:
            self._commands.on_record(record)
        elif record.topic == self._requester.topic:
            self._requester.on_reply(record)
