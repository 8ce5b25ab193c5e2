"""One message for many connections: encoded at most once for each codec."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dws_core._log.records import Record
from dws_core._wire.codecs import Codec, splice
from dws_core._wire.cursor import format_position
from dws_core._wire.envelope import open_envelope
from dws_core._wire.frames import Frame
from dws_core._wire.node_topics import conn_id_of

logger = logging.getLogger("dws")


def members_of(partition: int, epoch: str, record: Record) -> dict[str, Any]:
    """Return the members of a delivery, all but `data`."""
    members: dict[str, Any] = {"type": "message"}
    if not record.topic.startswith("$"):
        members["topic"] = record.topic
    elif (conn_id := conn_id_of(record.topic)) is not None:
        members["conn_id"] = conn_id
    if record.offset is not None:
        members["pos"] = format_position(partition, epoch, record.offset)
    return members


class SharedMessage:
    """A delivery, as the fan-out takes it.

    Args:
        topic: What it was published to.
        members: Of the delivery, all but `data`.
        payload: The envelope as it came from the broker.
        codecs: Of the node, by name.
    """

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
