"""Names of keys and channels, and what travels on a channel. No I/O.

A push is a line `<epoch> <lo> <hi> <ms> <publisher>`, then for each record a line `<offset> <prev> <seq> <topic> <payload> <key>`
with the lengths of three texts, which follow it. `-` for an offset: the topic has no history. The Lua of `_scripts` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dws_core.plugin import Layout, Offset, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Keys and channels of a dws channel. What belongs to a partition has its hash tag, so a script's keys are in one slot.

    Attributes:
        prefix: Of everything.
        layout: The channel.
    """

    prefix: str
    layout: Layout

    def base(self, partition: int) -> str:
        """Return what all keys of a partition begin with."""
        return f"{self.prefix}:{{{self.layout.channel}:{partition}}}:"

    def pushes(self, partition: int) -> str:
        """Return the channel on which a partition's records come."""
        return self.base(partition) + "c"

    @property
    def control(self) -> str:
        """The channel of control messages."""
        return f"{self.prefix}:{{{self.layout.channel}}}:control"

    @property
    def shape(self) -> str:
        """The key that holds the layout."""
        return f"{self.prefix}:{{{self.layout.channel}}}:layout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What came on a partition's channel; a probe has no records, and `lo == hi`.

    Attributes:
        epoch: Of the log.
        lo: Where the log ended before.
        hi: Where it ends now.
        records: In order.
    """

    epoch: str
    lo: Offset
    hi: Offset
    records: tuple[Record, ...]


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
    return Push(epoch=epoch.decode(), lo=int(lo), hi=int(hi), records=tuple(records))


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
