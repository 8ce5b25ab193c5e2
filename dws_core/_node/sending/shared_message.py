"""One message for many connections, encoded at most once for each codec."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from dws_core._log.records import Record
from dws_core._wire import server_messages
from dws_core._wire.codecs import Codec, splice
from dws_core._wire.cursor import format_position
from dws_core._wire.envelope import open_envelope
from dws_core._wire.frames import Frame

logger = logging.getLogger("dws")


class SharedMessage:
    """A record as the deliveries to all its receivers.

    Args:
        partition: Partition of the record.
        epoch: Epoch of the partition.
        record: The record. Its payload is an envelope.
        codecs: The node's codecs by name.
    """

    __slots__ = ("_codec", "_codecs", "_data", "_frames", "_members", "_topic")

    def __init__(self, partition: int, epoch: str, record: Record, codecs: Mapping[str, Codec]) -> None:
        pos = None if record.offset is None else format_position(partition, epoch, record.offset)
        self._topic = record.topic
        self._members = server_messages.message(record.topic, pos)
        self._codec, self._data = open_envelope(record.payload)
        self._codecs = codecs
        self._frames: dict[str, Frame | None] = {}

    def frame(self, codec: Codec) -> Frame | None:
        """Return the frame for connections with a codec, or None if the codec cannot encode it, which is logged."""
        if codec.name not in self._frames:
            self._frames[codec.name] = self._encode(codec)
        return self._frames[codec.name]

    def _encode(self, codec: Codec) -> Frame | None:
        try:
            if codec.name == self._codec:
                payload = splice(codec, self._members, self._data)
            else:
                payload = codec.encode({**self._members, "data": self._codecs[self._codec].decode(self._data)})
        except Exception:  # a plugin's codec may raise anything, and clients with other codecs still get the message
            text = "codec %r cannot encode a message of codec %r, so clients that use it miss the message"
            logger.exception(text, codec.name, self._codec)
            return None
        return Frame(payload, binary=codec.binary, topic=self._topic)
