"""Names of keys and channels, and what travels on a channel. No I/O.

A push is a line `<epoch> <lo> <hi> <ms> <publisher>`, then for each record a line `<offset> <prev> <seq> <topic> <payload> <key>`
with the lengths of three texts, which follow it. `-` for an offset: the topic has no history. The Lua of `_scripts` writes it.
`-` for the epoch: no record has a place in the log; `write_push` writes these, and they pass by it.
"""

from __future__ import annotations

from binascii import crc_hqx
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
        prefix: Of everything; without braces, which would make a hash tag of their own.
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
        numbers = range(self.layout.partitions)
        tags = _spread(self.layout) if self.spread else [f"{number}:{self.layout.channel}" for number in numbers]
        return tuple(f"{self.prefix}:{{{tag}}}:" for tag in tags)


def _spread(layout: Layout) -> list[str]:
    """Return a tag for each partition, `<partition>.<n>:<channel>`, with the least `n` that is in its share of the slots."""
    numbers, tags = _Numbers(layout.channel), []
    for partition in range(layout.partitions):
        first, end = (-(-part * _SLOTS // layout.partitions) for part in (partition, partition + 1))
        tags.append(f"{partition}.{numbers.least(partition, range(first, end))}:{layout.channel}")
    return tags


class _Numbers:
    """Finds the numbers of tags by their slots.

    The CRC-16 of a cluster is linear: that of a text is that of its beginning, with zeros for the rest, XOR that of the rest.
    So the rest, a number and the channel, is hashed once for all partitions, and then looked up.

    Args:
        channel: What follows.
    """

    def __init__(self, channel: str) -> None:
        self._ending = f":{channel}".encode().partition(b"}")[0]  # there the tag ends for Redis
        self._tables: list[dict[int, int]] = []

    def least(self, partition: int, slots: range) -> int:
        """Return the least number with which a partition is in one of the slots."""
        beginning = crc_hqx(b"%d." % partition, 0)
        for digits in count(1):
            table = self._table(digits)
            shift = crc_hqx(bytes(digits + len(self._ending)), beginning) % _SLOTS
            if found := [table[slot ^ shift] for slot in slots if slot ^ shift in table]:
                return min(found)
        raise AssertionError  # for the type checker: it counts for ever

    def _table(self, digits: int) -> dict[int, int]:
        """Return where the numbers of so many digits lead; of several with one slot, the least."""
        if digits > len(self._tables):
            numbers = range(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
            self._tables.append({crc_hqx(b"%d%b" % (n, self._ending), 0) % _SLOTS: n for n in reversed(numbers)})
        return self._tables[digits - 1]


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
