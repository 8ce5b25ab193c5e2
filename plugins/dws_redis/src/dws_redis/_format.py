"""Names of keys and channels, and what travels on a channel. No I/O.

A push is a line `<epoch> <lo> <hi> <ms> <publisher>`, then for each record a line `<offset> <prev> <seq> <topic> <payload> <key>`
with the lengths of three texts, which follow it. `-` for an offset: the topic has no history. The Lua of `_scripts` writes it.
`-` for the epoch: no record has a place in the log; `write_push` writes these, and they pass by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Final

from redis.crc import key_slot

from dws_core.plugin import Layout, Offset, Record

_SLOTS: Final = 16_384
"""Of every Redis cluster (Redis cluster specification)."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """Keys and channels of a dws channel. What belongs to a partition has its hash tag, so it is on one server of a cluster.

    Attributes:
        prefix: Of everything.
        layout: The channel.
        spread: Whether the tags are chosen such that the partitions divide the slots of a cluster evenly.
    """

    prefix: str
    layout: Layout
    spread: bool = False

    def base(self, partition: int) -> str:
        """Return what all keys of a partition begin with."""
        return self._bases[partition]

    def pushes(self, partition: int) -> str:
        """Return the channel on which a partition's records come."""
        return self._bases[partition] + "c"

    def control(self, partition: int) -> str:
        """Return the channel of control messages; an empty one is a sign of life. All nodes listen to that of partition 0."""
        return self._bases[partition] + "control"

    def slot(self, partition: int) -> int:
        """Return where in a cluster a partition is."""
        return key_slot(self._bases[partition].encode())

    @property
    def shape(self) -> str:
        """The key that holds the layout."""
        return self._bases[0] + "layout"

    @cached_property
    def _bases(self) -> tuple[str, ...]:
        return tuple(self._choose(number) for number in range(self.layout.partitions))

    def _choose(self, partition: int) -> str:
        base = f"{self.prefix}:{{{partition}:{self.layout.channel}}}:"
        if not self.spread:
            return base
        bases = (f"{self.prefix}:{{{partition}.{n}:{self.layout.channel}}}:" for n in count())
        return next(b for b in bases if key_slot(b.encode()) * self.layout.partitions // _SLOTS == partition)


def receipt_key(base: str, topic: str, key: str) -> str:
    """Return where the receipt for an application's key is kept; lengths keep topic and key apart."""
    return f"{base}k:{len(topic.encode())}:{topic}:{key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What came on a partition's channel; a probe has no records, and `lo == hi`.

    Attributes:
        epoch: Of the log; None: the records have no place in it, and `lo` and `hi` say nothing.
        lo: Where the log ended before.
        hi: Where it ends now.
        records: In order.
    """

    epoch: str | None
    lo: Offset
    hi: Offset
    records: tuple[Record, ...]


def write_push(publisher: str, ts_ms: int, messages: Iterable[tuple[int, str, bytes]]) -> bytes:
    """Write records that have no place in the log.

    Args:
        publisher: The node, in hexadecimal digits.
        ts_ms: When they were published, in milliseconds since the Unix epoch.
        messages: Of each its publisher's number, topic and payload.
    """
    parts = [b"- 0 0 %d %s\n" % (ts_ms, publisher.encode())]
    for seq, topic, payload in messages:
        name = topic.encode()
        parts += (b"- 0 %d %d %d 0\n" % (seq, len(name), len(payload)), name, payload)
    return b"".join(parts)


def read_push(data: bytes) -> Push:
    """Read what came.

    Raises:
        ValueError: It is not of this form: somebody else publishes on the channel.
    """
    at = data.index(b"\n")
    epoch, lo, hi, ms, publisher = data[:at].split(b" ")
    at += 1
    id_, ts_ms = bytes.fromhex(publisher.decode()), int(ms)
    records: list[Record] = []
    while at < len(data):
        end = data.index(b"\n", at)
        offset, prev, seq, topic, payload, key = data[at:end].split(b" ")
        after_topic = end + 1 + int(topic)
        after_payload = after_topic + int(payload)
        at = after_payload + int(key)
        if at > len(data):
            raise ValueError("a record is cut off")
        records.append(
            Record(
                offset=None if offset == b"-" else int(offset),
                topic=data[end + 1 : after_topic].decode(),
                payload=data[after_topic:after_payload],
                ts_ms=ts_ms,
                publisher=id_,
                seq=int(seq),
                key=data[after_payload:at].decode() or None,
                prev=None if offset == b"-" else int(prev),
            )
        )
    return Push(epoch=None if epoch == b"-" else epoch.decode(), lo=int(lo), hi=int(hi), records=tuple(records))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record as a topic's stream holds it.

    Attributes:
        record: The message.
        expires_ms: When it is no longer kept, in milliseconds since the Unix epoch, by the server's clock.
    """

    record: Record
    expires_ms: int


def read_entry(topic: str, entry: list[object]) -> Entry:
    """Read an entry of `XRANGE`."""
    id_, flat = entry
    assert isinstance(id_, bytes)  # noqa: S101 -- for the type checker: RESP2
    assert isinstance(flat, list)  # noqa: S101
    fields: dict[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=True))
    record = Record(
        offset=int(id_.partition(b"-")[0]),
        topic=topic,
        payload=fields[b"d"],
        ts_ms=int(fields[b"t"]),
        publisher=bytes.fromhex(fields[b"n"].decode()),
        seq=int(fields[b"q"]),
        key=fields[b"k"].decode() if b"k" in fields else None,
        prev=int(fields[b"p"]),
    )
    return Entry(record=record, expires_ms=int(fields[b"x"]))
