"""The envelope: what is stored in a stream. One envelope carries the records of one publisher and partition.

Layout, all numbers big-endian: version (1 byte), kind (1), epoch (8), offset where the epoch began (8), parent epoch (8),
publisher (8), first sequence number (8), previous (8), time in ms (8), then the records in MessagePack: an array of arrays
with topic, payload, history size, history TTL in ms, and key or nil.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Final

import msgspec

_VERSION: Final = 1
_HEADER: Final = struct.Struct(">BB8sQ8s8sQQQ")
_ARRAY_32: Final = b"\xdd"

NO_EPOCH: Final = bytes(8)
"""Epoch of an envelope that makes no claim."""

HEADER_BYTES: Final = _HEADER.size
"""Size of the header."""

ENVELOPE_BYTES: Final = HEADER_BYTES + 3
"""Largest size of an envelope without its records. It has at most 65,535."""

RECORD_BYTES: Final = 34
"""Largest size of a record without topic, key and payload: five for each of their lengths, nine for each number, one more."""


class Kind(IntEnum):
    """What an envelope is for.

    Attributes:
        RECORDS: It carries records.
        PROBE: It proves that the stream works. It carries nothing.
        GENESIS: It starts an epoch. It carries nothing.
        CONTROL: It carries one control message, for nodes that are live.
    """

    RECORDS = 0
    PROBE = 1
    GENESIS = 2
    CONTROL = 3


class Draft(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A record without its place.

    Attributes:
        topic: Topic of the message.
        payload: Opaque bytes.
        size: Number of messages of the topic to keep. If 0, the topic is ephemeral.
        ttl_ms: Time to keep the message, in milliseconds.
        key: The application's idempotency key, or None.
    """

    topic: str
    payload: bytes
    size: Annotated[int, msgspec.Meta(ge=0)]
    ttl_ms: Annotated[int, msgspec.Meta(ge=0)]
    key: str | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope.

    Attributes:
        kind: What it is for.
        publisher: 8-byte id of the node that wrote it.
        time_ms: Time of writing by the clock of that node, in milliseconds since the Unix epoch.
        epoch: 8-byte epoch: the one that a `GENESIS` starts, or the one that the publisher knows. `NO_EPOCH`: no claim.
        began: Stream offset of the `GENESIS` that started `epoch`. Not used by a `GENESIS`.
        parent: Epoch that a `GENESIS` replaces, `NO_EPOCH` for a new stream.
        first: Sequence number of the first record. For all other kinds: the publisher's number of this envelope.
        previous: Last sequence number of this publisher that certainly is before this envelope in the stream, or 0.
        drafts: The records.
    """

    kind: Kind
    publisher: bytes
    time_ms: int
    epoch: bytes = NO_EPOCH
    began: int = 0
    parent: bytes = NO_EPOCH
    first: int = 0
    previous: int = 0
    drafts: Sequence[Draft] = ()


_encode_drafts: Final = msgspec.msgpack.Encoder().encode
_decode_drafts: Final = msgspec.msgpack.Decoder(list[Draft]).decode


class UnreadableEnvelope(Exception):
    """The data is no envelope, or one of another version."""


def identity(data: bytes) -> bytes:
    """Return what distinguishes an envelope from all others: its header."""
    return data[:HEADER_BYTES]


def encode(envelope: Envelope) -> bytes:
    """Return an envelope as bytes."""
    e = envelope
    header = _HEADER.pack(_VERSION, e.kind, e.epoch, e.began, e.parent, e.publisher, e.first, e.previous, e.time_ms)
    return header + _encode_drafts(e.drafts)


def decode(data: bytes) -> Envelope:
    """Return the envelope in the data.

    Raises:
        UnreadableEnvelope: There is none.
    """
    try:
        version, kind, epoch, began, parent, publisher, first, previous, time_ms = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise UnreadableEnvelope(f"version {version}")
        return Envelope(
            kind=Kind(kind),
            publisher=publisher,
            time_ms=time_ms,
            epoch=epoch,
            began=began,
            parent=parent,
            first=first,
            previous=previous,
            drafts=_drafts(data),
        )
    except (struct.error, ValueError, msgspec.DecodeError) as error:
        raise UnreadableEnvelope(str(error)) from error


def readable(data: bytes) -> Envelope | None:
    """Return the envelope in the data, or None if there is none."""
    try:
        return decode(data)
    except UnreadableEnvelope:
        return None


def _drafts(data: bytes) -> list[Draft]:
    if data[HEADER_BYTES : HEADER_BYTES + 1] == _ARRAY_32:  # the place of a record in its envelope has 16 bits
        raise UnreadableEnvelope("more than 65,535 records")
    return _decode_drafts(memoryview(data)[HEADER_BYTES:])
