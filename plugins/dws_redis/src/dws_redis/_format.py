"""Names of keys and channels, and the format of the messages on a channel. No I/O.

A push starts with a line `<epoch> <lo> <hi> <ms> <publisher>`. For each record follow a line `<offset> <prev> <seq>
<topic> <payload> <key>` with the lengths of the last three, and then these three texts. An offset of `-` means that the
topic has no history. The Lua code of `_scripts` writes these pushes. An epoch of `-` means that no record of the push
has a position in the log. `write_push` writes such pushes, which are published without a script.
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

_MAX_DIGITS: Final = 18
"""Maximum number of digits of a number in a push."""

_SLOTS: Final = 16_384
"""Number of slots of every Redis cluster (Redis cluster specification)."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """Keys and channels of a dws channel.

    All names of a partition contain its hash tag, so that they are on one server of a cluster.

    Attributes:
        prefix: Prefix of all names. Contains no braces, because Redis would read them as the hash tag.
        layout: Layout of the channel.
        spread: Whether to choose the tags so that the partitions divide the slots of a cluster evenly.
    """

    prefix: str
    layout: Layout
    spread: bool = False

    def base(self, partition: int) -> str:
        """Return the prefix of all keys of a partition."""
        return self._bases[partition]

    def push_channel(self, partition: int) -> str:
        """Return the channel on which a partition's records are published."""
        return self._bases[partition] + "c"

    def control_channel(self, partition: int) -> str:
        """Return the channel of control messages. All nodes subscribe to that of partition 0.

        An empty message proves that the connection works.
        """
        return self._bases[partition] + "control"

    def slot(self, partition: int) -> int:
        """Return the cluster slot of a partition."""
        return key_slot(self._bases[partition].encode())

    @property
    def layout_key(self) -> str:
        """The key that holds the layout."""
        return self._bases[0] + "layout"

    @cached_property
    def _bases(self) -> tuple[str, ...]:
        numbers = range(self.layout.partitions)
        tags = _spread(self.layout) if self.spread else [f"{number}:{self.layout.channel}" for number in numbers]
        return tuple(f"{self.prefix}:{{{tag}}}:" for tag in tags)


def _spread(layout: Layout) -> list[str]:
    """Return a tag `<partition>.<n>:<channel>` for each partition, with the lowest `n` whose slot is in its share."""
    numbers, tags = _TagNumbers(layout.channel), []
    for partition in range(layout.partitions):
        first, end = (-(-part * _SLOTS // layout.partitions) for part in (partition, partition + 1))
        tags.append(f"{partition}.{numbers.lowest(partition, range(first, end))}:{layout.channel}")
    return tags


class _TagNumbers:
    """Finds the number in a tag that leads to a slot.

    The CRC-16 of a cluster is linear: the CRC of a text is the CRC of its beginning followed by zeros, XOR the CRC of
    its ending. Therefore the endings (a number and the channel) are hashed once for all partitions and then looked up.

    Args:
        channel: Name of the channel, which ends each tag.
    """

    def __init__(self, channel: str) -> None:
        self._ending = f":{channel}".encode().partition(b"}")[0]  # Redis ends the tag at the first brace
        self._tables: list[dict[int, int]] = []

    def lowest(self, partition: int, slots: range) -> int:
        """Return the lowest number that places a partition in one of the slots."""
        beginning = crc_hqx(b"%d." % partition, 0)
        for digits in count(1):
            table = self._table(digits)
            shift = crc_hqx(bytes(digits + len(self._ending)), beginning) % _SLOTS
            if found := [table[slot ^ shift] for slot in slots if slot ^ shift in table]:
                return min(found)
        raise AssertionError  # unreachable, for the type checker

    def _table(self, digits: int) -> dict[int, int]:
        """Return the lowest number with this many digits for each slot, without the partition's contribution."""
        if digits > len(self._tables):
            numbers = range(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
            self._tables.append({crc_hqx(b"%d%b" % (n, self._ending), 0) % _SLOTS: n for n in reversed(numbers)})
        return self._tables[digits - 1]


def receipt_key(base: str, topic: str, key: str) -> str:
    """Return the key that holds the receipt for an idempotency key. The length separates the topic from the key."""
    return f"{base}k:{len(topic.encode())}:{topic}:{key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """A message on a partition's channel. A probe has no records, and its `lo` equals its `hi`.

    Attributes:
        epoch: Epoch of the log. If None, the records have no position in it, and `lo` and `hi` have no meaning.
        lo: End of the log before these records.
        hi: End of the log after these records.
        records: The records, in order.
    """

    epoch: str | None
    lo: Offset
    hi: Offset
    records: tuple[Record, ...]


def write_push(publisher: str, ts_ms: int, messages: Iterable[tuple[int, str, bytes]]) -> bytes:
    """Return a push with records that have no position in the log.

    Args:
        publisher: Id of the publishing node, in hexadecimal digits.
        ts_ms: Time of the publish, in milliseconds since the Unix epoch.
        messages: Sequence number, topic and payload of each message.
    """
    parts = [b"- 0 0 %d %s\n" % (ts_ms, publisher.encode())]
    for seq, topic, payload in messages:
        name = topic.encode()
        parts += (b"- 0 %d %d %d 0\n" % (seq, len(name), len(payload)), name, payload)
    return b"".join(parts)


def read_push(data: bytes) -> Push:
    """Parse a push.

    Raises:
        ValueError: The data is no push. Another program may publish on the channel.
    """
    at = data.index(b"\n")
    epoch, low, high, ms, publisher = data[:at].split(b" ")
    at += 1
    id_, ts_ms, lo, hi = bytes.fromhex(publisher.decode()), _number(ms), _number(low), _number(high)
    last = lo
    records: list[Record] = []
    while at < len(data):
        end = data.index(b"\n", at)
        offset, prev, seq, topic, payload, key = data[at:end].split(b" ")
        after_topic = end + 1 + _number(topic)
        after_payload = after_topic + _number(payload)
        at = after_payload + _number(key)
        if at > len(data):
            raise ValueError("a record is truncated")
        if offset != b"-":
            last = _following(last, _number(offset), hi)
        records.append(
            Record(
                offset=None if offset == b"-" else last,
                topic=data[end + 1 : after_topic].decode(),
                payload=data[after_topic:after_payload],
                ts_ms=ts_ms,
                publisher=id_,
                seq=_number(seq),
                key=data[after_payload:at].decode() or None,
                prev=None if offset == b"-" else _number(prev),
            )
        )
    if lo > hi:
        raise ValueError("the end of the log goes back")
    return Push(epoch=None if epoch == b"-" else epoch.decode(), lo=lo, hi=hi, records=tuple(records))


def _number(digits: bytes) -> int:
    """Return a number that is not negative. `int` would also accept signs, spaces and underscores."""
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise ValueError("a number is malformed")
    return int(digits)


def _following(last: Offset, offset: Offset, hi: Offset) -> Offset:
    if not last < offset <= hi:
        raise ValueError("a record has an offset outside of its range")
    return offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of a topic's stream.

    Attributes:
        record: The message.
        expires_ms: Time when the record expires, in milliseconds since the Unix epoch, by the server's clock.
    """

    record: Record
    expires_ms: int


def read_entry(topic: str, entry: list[object]) -> Entry:
    """Parse an entry of an `XRANGE` reply."""
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
