"""From the log to the connections: records become shared frames in outboxes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from dws_core._log.interface import BrokerState, GapReason, Head, Offset, Record
from dws_core._node.connection import Connection
from dws_core._node.connections import Connections
from dws_core._node.counters import Counters
from dws_core._node.fanout import Fanout
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

    def __init__(
        self,
        router: Router[Connection],
        connections: Connections,
        codecs: Mapping[str, Codec],
        fanout: Fanout,
        counters: Counters,
    ) -> None:
        self._router = router
        self._connections = connections
        self._codecs = codecs
        self._fanout = fanout
        self._counters = counters
        self.state: BrokerState = "connecting"

    def on_records(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        """Deliver records in order."""
        self._counters.received += len(records)
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
        topic = record.topic
        if not topic.startswith("$"):
            receivers: Sequence[Connection] = self._router.receivers(topic)
            members["topic"] = topic
        elif topic == ALL:
            receivers = self._connections.everyone
        elif (conn_id := conn_id_of(topic)) is not None:
            receivers = self._connections.by_id(conn_id)
            members["conn_id"] = conn_id
        else:
            return
        if not receivers:
            return
        if record.offset is not None:
            members["pos"] = format_position(partition, epoch, record.offset)
        self._fanout.push(receivers, _Shared(topic, members, record.payload, self._codecs))


class _Shared:
    """A message for many connections, encoded at most once for each codec."""

    __slots__ = ("_codec", "_codecs", "_data", "_frames", "_members", "_topic")

    def __init__(self, topic: str, members: dict[str, Any], payload: bytes, codecs: Mapping[str, Codec]) -> None:
        self._topic = topic
        self._members = members
        self._codec, self._data = open_envelope(payload)
        self._codecs = codecs
        self._frames: dict[str, Frame | None] = {}

    def frame(self, codec: Codec) -> Frame | None:
        """Return the frame for connections of a codec; None: the codec cannot express it, which is logged."""
        if codec.name not in self._frames:
            self._frames[codec.name] = self._encoded(codec)
        return self._frames[codec.name]

    def _encoded(self, codec: Codec) -> Frame | None:
        try:
            if codec.name == self._codec:
                payload = splice(codec, self._members, self._data)
            else:
                payload = codec.encode({**self._members, "data": self._codecs[self._codec].decode(self._data)})
        except Exception:  # a plugin's codec may raise anything; the other codecs' clients still get the message
            text = "codec %r cannot express a message encoded by %r; its clients miss it"
            logger.exception(text, codec.name, self._codec)
            return None
        return Frame(payload, binary=codec.binary, topic=self._topic)
