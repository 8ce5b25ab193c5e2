"""The values that brokers and nodes exchange.

A channel has P partitions. Each partition is an ordered log with an epoch and offsets. The epoch is an opaque text that
changes when the log loses data. Offsets strictly increase within an epoch and may have holes. A topic belongs to one
partition.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, TypeAlias

import msgspec

from dws_core._errors import ConfigurationError

Offset: TypeAlias = int
"""Place in a partition's log: 0 <= offset < 2**63, strictly increasing within an epoch, holes allowed."""

TopicMatch: TypeAlias = Callable[[str], bool]
"""Returns whether a topic is wanted. Pure and fast."""

WantedTopics: TypeAlias = Collection[str] | TopicMatch
"""The wanted topics of one partition: exact topics, or a function where a wildcard is among the filters."""

BrokerState: TypeAlias = Literal["connecting", "live", "degraded", "blocked", "closed"]
"""State of a node's connection to its broker. See `NodeHealth.broker`."""

_MAX_SIZE: Final = 2**31 - 1
_MAX_TTL_S: Final = 315_360_000
"""Ten years."""


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message in a partition's log.

    Attributes:
        offset: Place in the log. None for a topic without history, which has no position to resume from.
        topic: Topic of the message.
        payload: Opaque bytes.
        ts_ms: Time when the broker stored it, in milliseconds since the Unix epoch, by the broker's clock if it has one.
        publisher: 8-byte id of the node that published it.
        seq: That node's counter for this partition, from 1.
        key: The application's idempotency key, or None.
        prev: Offset of the previous record of the same topic, 0 if there was none, None if the broker cannot tell.
    """

    offset: Offset | None
    topic: str
    payload: bytes
    ts_ms: int
    publisher: bytes
    seq: int
    key: str | None = None
    prev: Offset | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of a partition's log.

    Attributes:
        partition: Number of the partition, from 0.
        epoch: Opaque text of `[0-9a-z]`, at most 16 characters.
        offset: Offset of the last stored record, 0 if nothing is stored in this epoch.
    """

    partition: int
    epoch: str
    offset: Offset


class GapReason(StrEnum):
    """Why messages may have been lost. Clients receive these values."""

    EPOCH = "epoch"
    TRIMMED = "trimmed"
    AHEAD = "ahead"
    LAYOUT = "layout-changed"
    TOO_MANY = "too-many"
    UNSUPPORTED = "unsupported"
    INTERRUPTED = "interrupted"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How many messages of a topic are kept for reconnecting clients, and for how long.

    Attributes:
        size: Number of messages kept per topic, at most 2**31-1. If 0, the topic is ephemeral and its messages carry no
            position.
        ttl_s: Time to keep a message, in seconds. Positive, at most ten years (315,360,000).

    Raises:
        ConfigurationError: A value is no number or out of these bounds. Every broker can keep what these bounds allow.
    """

    size: int = 300
    ttl_s: float = 600.0

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 0 <= self.size <= _MAX_SIZE:
            raise ConfigurationError(
                f"History(size={self.size!r}) must be 0 to {_MAX_SIZE:,} messages.",
                fix="give the number of messages that clients need, or use History.none() to keep nothing",
            )
        if type(self.ttl_s) not in (int, float) or not 0 < self.ttl_s <= _MAX_TTL_S:  # also refuses NaN
            raise ConfigurationError(
                f"History(ttl_s={self.ttl_s!r}) must be positive and at most {_MAX_TTL_S:,} seconds, ten years.",
                fix="give the number of seconds that clients need, or use History.none() to keep nothing",
            )

    @classmethod
    def none(cls) -> History:
        """Return a history that keeps nothing: the topic is ephemeral."""
        return cls(size=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a channel is divided into logs. All nodes of a channel must use the same layout.

    Attributes:
        channel: Name of the channel, used as the prefix on the broker.
        partitions: Number of partition logs, at least 1.
        shard_levels: Number of topic levels that choose the partition. If 0, the whole topic chooses it.
    """

    channel: str
    partitions: int = 1
    shard_levels: int = 0


class Receipt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The broker's answer to a publish.

    Attributes:
        epoch: Epoch of the partition, empty if the broker has no log.
        offset: Offset of the record, None for a topic without history.
        duplicate: Whether a record with the same key existed. If True, nothing was stored and the offset is that of the
            existing record.
        pos: Position of the message in the form that clients receive, such as `0:k9x2p0aa:1042`. None for a topic without
            history. The manager sets it. Brokers leave it out.
    """

    epoch: str
    offset: Offset | None
    duplicate: bool = False
    pos: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadSpan:
    """One read request: the records in `(since, until]` of one partition that have a wanted topic.

    Spans compare by identity, so that they can be dictionary keys.

    Attributes:
        partition: Number of the partition.
        epoch: Epoch in which both offsets are valid.
        since: Exclusive lower offset.
        until: Inclusive upper offset.
        topics: The wanted topics.
        limit: Maximum number of records. More are the gap `too-many`.
        max_bytes: Maximum size of all payloads, in bytes. More are the gap `too-many`.
    """

    partition: int
    epoch: str
    since: Offset
    until: Offset
    topics: WantedTopics
    limit: int
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResult:
    """The answer to `LogBroker.read`: complete, or a gap. Never partial.

    Attributes:
        records: All requested records, in ascending order of offset. Empty if there is a gap.
        gap: Why the request cannot be answered, or None.
        next_since: With a gap, the lowest `since` for which another read may be complete, if the broker can tell. A
            search for the last messages of a topic needs fewer reads with it.
    """

    records: tuple[Record, ...] = ()
    gap: GapReason | None = None
    next_since: Offset | None = None
