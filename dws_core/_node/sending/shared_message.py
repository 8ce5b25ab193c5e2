"""One message for many connections, encoded at most once for each codec."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from dws_core._limits.token_bucket import TokenBucket
from dws_core._log.records import GapReason, Record
from dws_core._log.recovery import Due
from dws_core._topics.filters import is_reserved
from dws_core._wire import server_messages
from dws_core._wire.codecs import Codec, splice, splice_of
from dws_core._wire.cursor import Position, format_position
from dws_core._wire.envelope import header_of, open_envelope, sender_of
from dws_core._wire.frames import Frame, encode_frame

logger = logging.getLogger("dws")

_LOG_EVERY_S: Final = 60.0
_log_allowance = TokenBucket(1 / _LOG_EVERY_S, 1, now=0.0)


class SharedMessage:
    """A record as the deliveries to all its receivers.

    A record that cannot be read, or that a codec cannot express, becomes a `gap` in its place. Nodes of another version,
    or with other codecs, may have published it.

    Args:
        partition: Partition of the record.
        epoch: Epoch of the partition.
        record: The record. Its payload is an envelope.
        codecs: The node's codecs by name.
    """

    __slots__ = ("_codecs", "_epoch", "_frames", "_partition", "_record")

    def __init__(self, partition: int, epoch: str, record: Record, codecs: Mapping[str, Codec]) -> None:
        self._partition = partition
        self._epoch = epoch
        self._record = record
        self._codecs = codecs
        self._frames: dict[str, Frame | None] = {}

    def frame(self, codec: Codec) -> Frame | None:
        """Return the frame for connections with a codec. None if the codec cannot even express a gap, which is logged."""
        if codec.name not in self._frames:
            self._frames[codec.name] = self._encode(codec)
        return self._frames[codec.name]

    def _encode(self, codec: Codec) -> Frame | None:
        try:
            payload = self._payload(codec)
        except Exception as error:  # noqa: BLE001 -- a plugin's codec may raise anything
            log_skipped(self._record, codec, error)
            return self._gap(codec)
        return Frame(payload, binary=codec.binary, topic=self._droppable_topic())

    def _payload(self, codec: Codec) -> bytes:
        members = self._members()
        name, data = open_envelope(self._record.payload)
        if codec.name == name:
            return splice(codec, members, data)
        return codec.encode({**members, "data": self._codecs[name].decode(data)})

    def _members(self) -> server_messages.ServerMessage:
        record = self._record
        pos = None if record.offset is None else format_position(self._partition, self._epoch, record.offset)
        return server_messages.message(record.topic, pos, sender_of(record.payload))

    def _droppable_topic(self) -> str | None:
        return self._record.topic

    def _gap_members(self) -> server_messages.ServerMessage:
        offset, topic = self._record.offset, self._record.topic
        cursor = {} if offset is None else {self._partition: Position(self._partition, self._epoch, offset)}
        return server_messages.gap(() if is_reserved(topic) else (topic,), GapReason.UNREADABLE, cursor)

    def _gap(self, codec: Codec) -> Frame | None:
        try:
            return encode_frame(codec, self._gap_members())
        except Exception:
            logger.exception("codec %r cannot encode a gap, so clients that use it miss a message", codec.name)
            return None


class ReplayedMessage(SharedMessage):
    """A record in the past of a `subscribe`, for its only receiver.

    Args:
        due: The record.
        replay: Id of the `subscribe`.
        codecs: The node's codecs by name.
    """

    __slots__ = ("_replay",)

    def __init__(self, due: Due, replay: server_messages.RequestId, codecs: Mapping[str, Codec]) -> None:
        super().__init__(due.partition, due.epoch, due.record, codecs)
        self._replay = replay

    def _members(self) -> server_messages.ServerMessage:
        return {**super()._members(), "replay": self._replay}

    def _gap_members(self) -> server_messages.ServerMessage:
        return {**super()._gap_members(), "replay": self._replay}


class PastEncoder:
    """Encodes the messages of one past for its only receiver. Most of them need only a part of `SharedMessage`.

    Args:
        codec: Codec of the receiver.
        codecs: The node's codecs by name.
        replay: Id of the `subscribe`.
    """

    def __init__(self, codec: Codec, codecs: Mapping[str, Codec], replay: server_messages.RequestId) -> None:
        self._codec = codec
        self._codecs = codecs
        self._replay = replay
        self._splice: Callable[[server_messages.ServerMessage, bytes], bytes] = splice_of(codec)
        self._header = header_of(codec.name)
        self._data_at = len(self._header)
        self._topic = ""
        self._members: server_messages.ServerMessage = {}  # those of the last message

    def frame(self, due: Due) -> Frame | None:
        """Return the frame of a record, as `SharedMessage.frame`."""
        partition, epoch, record = due
        payload = record.payload
        if record.offset is None or not payload.startswith(self._header):
            return ReplayedMessage(due, self._replay, self._codecs).frame(self._codec)
        position = format_position(partition, epoch, record.offset)
        if record.topic == self._topic:
            self._members["pos"] = position
        else:
            self._topic = record.topic
            self._members = server_messages.message(record.topic, position, replay=self._replay)
        try:
            encoded = self._splice(self._members, payload[self._data_at :])
        except Exception:  # noqa: BLE001 -- a plugin's codec may raise anything, which is handled there
            return ReplayedMessage(due, self._replay, self._codecs).frame(self._codec)
        return Frame(encoded, binary=self._codec.binary, topic=record.topic)


class SharedRequest(SharedMessage):
    """A record as the request to all its receivers. No slow-consumer policy drops it.

    Clients whose codec cannot express it do not receive it, which is logged.

    Args:
        record: The record. Its payload is an envelope.
        reply_to: Text that replies repeat.
        timeout_s: Time for a reply, in seconds.
        codecs: The node's codecs by name.
    """

    __slots__ = ("_reply_to", "_timeout_s")

    def __init__(self, record: Record, reply_to: str, timeout_s: float, codecs: Mapping[str, Codec]) -> None:
        super().__init__(0, "", record, codecs)
        self._reply_to = reply_to
        self._timeout_s = timeout_s

    def _members(self) -> server_messages.ServerMessage:
        return server_messages.request(self._reply_to, self._timeout_s)

    def _droppable_topic(self) -> None:
        return None

    def _gap(self, codec: Codec) -> None:
        return None


def log_skipped(record: Record, codec: Codec | None, error: Exception) -> None:
    """Log that a record is skipped, at most once per minute."""
    if _log_allowance.take(asyncio.get_running_loop().time()):
        return
    reader = f"clients with codec {codec.name!r}" if codec is not None else "a history"
    logger.warning(
        "a message on topic %r is skipped for %s, because it cannot be read: %s; logged at most once per minute",
        record.topic, reader, error,
    )  # fmt: skip
