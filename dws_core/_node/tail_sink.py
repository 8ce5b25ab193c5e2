"""From the log to the connections: records become shared frames in outboxes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from dws_core._log.records import BrokerState, GapReason, Head, Offset, Record
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.registry import ConnectionRegistry
from dws_core._node.recovery.attach import gap_frame
from dws_core._node.recovery.attachments import Attachments
from dws_core._node.recovery.cursors import Cursors
from dws_core._node.recovery.interest import Interest
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._node.sending.fanout import Fanout
from dws_core._node.sending.shared_message import SharedMessage, members_of
from dws_core._node.stats import Counters
from dws_core._topics.router import Router
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import Position
from dws_core._wire.node_topics import ALL, conn_id_of

logger = logging.getLogger("dws")


class NodeTailSink:
    """The node's `TailSink`: routes each record to the connections that want it.

    Nothing here waits, and nothing that goes wrong with one record or connection reaches another.
    """

    def __init__(
        self,
        router: Router[Connection],
        connections: ConnectionRegistry,
        codecs: Mapping[str, Codec],
        fanout: Fanout,
        counters: Counters,
        logs: LogCaches,
        interest: Interest,
        positions: Cursors,
        attachments: Attachments,
    ) -> None:
        self._router = router
        self._connections = connections
        self._codecs = codecs
        self._fanout = fanout
        self._counters = counters
        self._logs = logs
        self._interest = interest
        self._positions = positions
        self._attachments = attachments
        self.state: BrokerState = "connecting"
        self.detail: str = ""

    def on_records(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        """Deliver records in order."""
        self._counters.received += len(records)
        self._logs.advance(partition, epoch, lo, hi, records)
        for record in records:
            try:
                self._deliver(partition, epoch, record)
            except Exception:
                logger.exception("a message on topic %r could not be delivered on this node", record.topic)
        if self._attachments:
            self._attachments.on_advance()

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        """Tell every connection that needs the partition that messages may have been lost."""
        logger.warning("partition %d lost its place (%s); messages may have been lost", partition, reason)
        self._logs.reset(head)
        told = self._attachments.on_discontinuity(reason, head)
        cursor = {partition: Position(partition, head.epoch, head.offset)}
        for connection in self._connections:
            if connection in told:
                continue
            filters = self._interest.filters_in(connection, partition)
            holds_cursor = self._positions.follows(connection) and partition in self._interest.partitions(connection)
            if filters or holds_cursor:
                connection.push(gap_frame(connection.codec, reason, cursor, filters))

    def on_control(self, sender: bytes, payload: bytes) -> None:
        """No control messages yet."""

    def on_state(self, state: BrokerState, detail: str) -> None:
        """Keep the broker's state, and log a change."""
        if state != self.state:
            level = logging.WARNING if state in ("degraded", "blocked") else logging.INFO
            logger.log(level, "broker is %s: %s", state, detail)
        self.state, self.detail = state, detail

    def _deliver(self, partition: int, epoch: str, record: Record) -> None:
        topic = record.topic
        if not topic.startswith("$"):
            receivers: Sequence[Connection] = self._router.receivers(topic)
        elif topic == ALL:
            receivers = self._connections.everyone
        elif (conn_id := conn_id_of(topic)) is not None:
            receivers = self._connections.by_id(conn_id)
        else:
            return
        if receivers and self._attachments:
            receivers = self._attachments.divert(receivers, partition, epoch, record)
        if receivers:
            members = members_of(partition, epoch, record)
            self._fanout.push(receivers, SharedMessage(topic, members, record.payload, self._codecs))
