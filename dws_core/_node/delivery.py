"""From the log to the connections: records become shared frames in outboxes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from dws_core._log.interface import BrokerState, GapReason, Head, Offset, Record
from dws_core._node.connection import Connection
from dws_core._node.connections import Connections
from dws_core._topics.router import Router
from dws_core._wire.codecs import Codec, splice
from dws_core._wire.cursor import format_position
from dws_core._wire.envelope import open_envelope
from dws_core._wire.frames import Frame
from dws_core._wire.node_topics import ALL, conn_id_of

logger = logging.getLogger("dws")


class Delivery:
    """The node's `TailSink`: routes each record to the connections that want it.

    Nothing here waits, and nothing that goes wrong with one record or connection reaches another.
    """

    def __init__(self, router: Router[Connection], connections: Connections, codecs: dict[str, Codec]) -> None:
        self._router = router
        self._connections = connections
        self._codecs = codecs
        self.state: BrokerState = "connecting"

    def on_records(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        """Deliver records in order."""
        for record in records:
            try:
                self._deliver(partition, epoch, record)
            except Exception:
                logger.exception("a message on topic %r could not be delivered on this node", record.topic)

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        """Tell every connection with filters that messages may have been lost."""
        logger.warning("partition %d lost its place (%s); messages may have been lost", partition, reason)
        for connection in self._connections:
            if not connection.topics:
                continue
            gap: dict[str, Any] = {"type": "gap", "filters": sorted(connection.topics), "reason": str(reason)}
            gap["cursor"] = format_position(partition, head.epoch, head.offset)
            connection.push(Frame(connection.codec.encode(gap), binary=connection.codec.binary))

    def on_control(self, sender: bytes, payload: bytes) -> None:
        """No control messages yet."""

    def on_state(self, state: BrokerState, detail: str) -> None:
        """Log a change of the broker's state."""
        if state != self.state:
            level = logging.WARNING if state in ("degraded", "blocked") else logging.INFO
            logger.log(level, "broker is %s: %s", state, detail)
        self.state = state

    def _deliver(self, partition: int, epoch: str, record: Record) -> None:
        members: dict[str, Any] = {"type": "message"}
        if not record.topic.startswith("$"):
            receivers: Sequence[Connection] = self._router.receivers(record.topic)
            members["topic"] = record.topic
        elif record.topic == ALL:
            receivers = tuple(self._connections)
        elif (conn_id := conn_id_of(record.topic)) is not None:
            receivers = self._connections.by_id(conn_id)
            members["conn_id"] = conn_id
        else:
            return
        if not receivers:
            return
        if record.offset is not None:
            members["pos"] = format_position(partition, epoch, record.offset)
        self._fan_out(receivers, members, record.payload)

    def _fan_out(self, receivers: Sequence[Connection], members: dict[str, Any], payload: bytes) -> None:
        name, data = open_envelope(payload)
        frames: dict[str, Frame | None] = {}
        for connection in receivers:
            codec = connection.codec
            try:
                frame = frames[codec.name]
            except KeyError:
                frame = frames[codec.name] = self._frame(codec, name, members, data)
            if frame is not None:
                connection.push(frame)

    def _frame(self, codec: Codec, name: str, members: dict[str, Any], data: bytes) -> Frame | None:
        try:
            if codec.name == name:
                return Frame(splice(codec, members, data), binary=codec.binary)
            return Frame(codec.encode({**members, "data": self._codecs[name].decode(data)}), binary=codec.binary)
        except Exception:  # a plugin's codec may raise anything; the other codecs' clients still get the message
            logger.exception("codec %r cannot express a message encoded by %r; its clients miss it", codec.name, name)
            return None
