"""What a broker is to the core.

Two ways to be a broker. `BrokerInterface`: six methods, at most once, no history; the smallest thing to write.
`LogBroker`: partition logs with positions, history and recovery. The core adapts the first to the second, so that the
node has one path.

The model: a channel has P partitions; each is a log, ordered, with an epoch (an opaque text that changes when the log
loses data) and offsets that strictly increase within an epoch and may have holes. A topic belongs to one partition.
Each node tails the partitions it needs and is told, without holes, everything that is stored in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, Self, TypeAlias

import msgspec

from dws_core._errors import ConfigurationError
from dws_core._wire.message import Message

if TYPE_CHECKING:
    from asyncio import Future

    from dws_core._url import BrokerURL

Offset: TypeAlias = int
"""Place in a partition's log: 0 <= offset < 2**63, strictly increasing within an epoch, holes allowed."""

TopicMatch: TypeAlias = Callable[[str], bool]
"""Says whether a topic is wanted; pure and fast."""

BrokerState: TypeAlias = Literal["connecting", "live", "degraded", "blocked", "closed"]

_MAX_SIZE: Final = 2**31 - 1
_MAX_TTL_S: Final = 315_360_000
"""Ten years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One message in a partition's log.

    Attributes:
        offset: Its place in the log; None for a topic without history, which has no place to resume from.
        topic: What it was published to.
        payload: Opaque bytes.
        ts_ms: When the broker stored it, in milliseconds since the Unix epoch, by the broker's clock where it has one.
        publisher: 8-byte id of the node that published it.
        seq: That node's counter for this partition, from 1.
        key: The application's idempotency key, or None.
        prev: Offset of the previous record of the same topic where the broker knows it; 0: there was none; None:
            unknown.
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
    """Where a partition's log ends.

    Attributes:
        partition: Number of the partition, from 0.
        epoch: Opaque text of `[0-9a-z]`, at most 16 characters.
        offset: Of the last stored record; 0: nothing stored in this epoch.
        first: Lowest offset that can still be read.
    """

    partition: int
    epoch: str
    offset: Offset
    first: Offset = 0


class GapReason(StrEnum):
    """Why messages may have been lost. The values are what clients see."""

    EPOCH = "epoch"
    TRIMMED = "trimmed"
    AHEAD = "ahead"
    LAYOUT = "layout-changed"
    TOO_MANY = "too-many"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How much of a topic is kept for clients that come back.

    Attributes:
        size: Messages kept for each topic, at most 2**31-1; 0: none, the topic is ephemeral and its messages carry no
            position.
        ttl_s: Seconds a message is kept; positive, at most ten years (315,360,000).

    Raises:
        ConfigurationError: Out of these bounds. So every broker can keep what it is given: none has to cut.
    """

    size: int = 300
    ttl_s: float = 600.0

    def __post_init__(self) -> None:
        if not 0 <= self.size <= _MAX_SIZE:
            raise ConfigurationError(
                f"History(size={self.size!r}) must be 0 to {_MAX_SIZE:,} messages.",
                fix="give the number that is really needed, or use History.none() to keep nothing",
            )
        if not 0 < self.ttl_s <= _MAX_TTL_S:  # NaN is neither
            raise ConfigurationError(
                f"History(ttl_s={self.ttl_s!r}) must be positive and at most {_MAX_TTL_S:,} seconds, ten years.",
                fix="give the seconds that are really needed, or use History.none() to keep nothing",
            )

    @classmethod
    def none(cls) -> History:
        """Keep nothing: the topic is ephemeral."""
        return cls(size=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a channel is cut into logs. All nodes of a channel must have the same.

    Attributes:
        channel: Name of the channel: the prefix on the broker.
        partitions: Number of partition logs, at least 1.
        shard_levels: Topic levels that choose the partition; 0: the whole topic.
    """

    channel: str
    partitions: int = 1
    shard_levels: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The broker's answer to a publish.

    Attributes:
        epoch: Epoch of the partition; empty where the broker has no log.
        offset: Where the record stands; None for a topic without history.
        duplicate: True if a record of the same key was there already: nothing was stored, the offset is the first's.
    """

    epoch: str
    offset: Offset | None
    duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResult:
    """The answer to `LogBroker.read`: complete, or a reason why it cannot be. Never partial.

    Attributes:
        records: All that was asked for, ascending by offset; empty if there is a gap.
        gap: None, or why it cannot be answered.
    """

    records: tuple[Record, ...] = ()
    gap: GapReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerCapabilities:
    """What a `BrokerInterface` promises. It selects the conformance tests.

    Attributes:
        cross_process: Nodes in different processes see each other.
        ordering: `per-publisher`: one publisher's messages to a channel arrive in order; `total`: all nodes see one
            order; `none`.
        delivery: What the broker guarantees to a connected node.
        max_payload_bytes: Largest payload in bytes; a larger one raises `PayloadTooLarge`.
    """

    cross_process: bool
    ordering: Literal["none", "per-publisher", "total"] = "per-publisher"
    delivery: Literal["at-most-once", "at-least-once"] = "at-most-once"
    max_payload_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCapabilities:
    """What a `LogBroker` promises. It selects the conformance tests and fills the capability matrix of the docs.

    Attributes:
        recovery: `read` answers what was missed.
        durable: What stored messages survive: nothing, the process, a crash with disk, the loss of a server.
        cross_process: Nodes in different processes see each other.
        per_topic_retention: Size and TTL of `History` are applied by the broker itself.
        exact_gap: A gap is answered only if something was really missed (else: whenever it cannot be excluded).
        dedupe: Where a repeated key is dropped: at the publish step (`broker`) or by every reader (`tail`).
        native_presence: The plugin also is a `SupportsNativePresence`.
        partition_interest: `set_interest` really narrows what is received.
        max_payload_bytes: Largest payload in bytes; a larger one raises `PayloadTooLarge`.
        max_topic_bytes: Longest topic in bytes of UTF-8.
        idle_ops_per_s: Requests to the broker in a second by a node with nothing to do, at most.
    """

    recovery: bool = True
    durable: Literal["none", "process", "disk", "replicated"] = "none"
    cross_process: bool = True
    per_topic_retention: bool = True
    exact_gap: bool = False
    dedupe: Literal["broker", "tail"] = "broker"
    native_presence: bool = False
    partition_interest: bool = False
    max_payload_bytes: int = 1_048_576
    max_topic_bytes: int = 1024
    idle_ops_per_s: float = 10.0


class TailSink(Protocol):
    """What a `LogBroker` tells the node. Implemented by the core; called on the node's event loop; never blocks."""

    def on_records(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        """Take everything that is stored in `(lo, hi]`, in order, each once.

        `lo` is the previous call's `hi`. `records` may be empty: the watermark moves on. Records of topics without
        history (offset None) come in between, in the order they were published.
        """
        ...

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        """Take a new baseline: what lies between the last `hi` and `head.offset` is not known and will not come."""
        ...

    def on_control(self, sender: bytes, payload: bytes) -> None:
        """Take a control message of a node, own ones included."""
        ...

    def on_state(self, state: BrokerState, detail: str) -> None:
        """Take the state of the way to the broker, for health and logs. `detail` is one sentence, no secrets."""
        ...


class LogBroker(ABC):
    """Partition logs with positions, history and recovery.

    One object serves one node. All methods are called on one event loop, the one that called `start`. Client library
    exceptions never escape: they are wrapped in a `BrokerError`, the original kept as `__cause__`.
    """

    capabilities: ClassVar[LogCapabilities]
    partitions: ClassVar[int] = 1
    """Partitions of a channel where the application does not choose."""

    @classmethod
    @abstractmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build a broker; no I/O.

        Raises:
            InvalidBrokerURL: An option is unknown (list the valid ones: `url.read_options` does) or malformed.
        """

    @abstractmethod
    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Connect; return when publishing works.

        Args:
            node: 8 random bytes that name this node: the publisher id of its records.
            layout: The channel and its partitions.
            sink: Where records, gaps, control messages and states go.

        Raises:
            BrokerUnavailable: The broker cannot be reached; the message names the masked URL.
            LayoutMismatch: The channel exists with another layout.
            BrokerMisconfigured: The broker's settings break a promise.
        """

    @abstractmethod
    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Flush pending publishes for at most `drain_s` seconds, fail the rest, leave no task or socket. Idempotent.

        The sink is called no more once this has returned.
        """

    @abstractmethod
    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Choose the partitions to tail; the last call wins.

        Returns once each is live: every record that any node's publish acknowledges after that is delivered to the
        sink. The heads are the baseline: the first `lo` of each partition is its `offset`.

        Raises:
            BrokerClosed: Not started, or stopped.
            BrokerUnavailable: The broker cannot be reached.
        """

    @abstractmethod
    def publish(
        self,
        partition: int,
        topic: str,
        payload: bytes,
        *,
        history: History,
        key: str | None = None,
        deadline_s: float = 10.0,
    ) -> Future[Receipt]:
        """Store a message and send it to every node that tails the partition, in one atomic step.

        Never suspends and is called with a running loop. FIFO for each partition. The future resolves when the broker
        has it; cancelling it does not withdraw the message.

        Args:
            partition: Where the topic belongs.
            topic: Valid, at most `capabilities.max_topic_bytes`.
            payload: Opaque bytes.
            history: How much of the topic to keep, this message included. `size` 0: deliver, keep nothing.
            key: A repeat of (channel, topic, key) within 60 s stores nothing and answers with the first receipt. 1 to
                1,024 bytes of UTF-8.
            deadline_s: Seconds after which the future fails, at the latest.

        Raises (through the future):
            PayloadTooLarge: Over `capabilities.max_payload_bytes`; nothing was sent.
            BrokerClosed: Not started, or stopped.
            BrokerUnavailable: Certainly not stored.
            BrokerOverloaded: The publish queue is full; certainly not stored.
            PublishOutcomeUnknown: Perhaps stored.
        """

    @abstractmethod
    async def read(
        self,
        partition: int,
        *,
        since: Offset,
        until: Offset,
        epoch: str,
        topics: Collection[str] | TopicMatch,
        limit: int,
        max_bytes: int,
    ) -> ReadResult:
        """Read the records of `(since, until]` that have one of the topics: all of them, or a gap. Never a part.

        The answer is a gap: `epoch` if the partition's epoch is another; `ahead` if the head is behind `since`;
        `trimmed` if a wanted record may have been dropped (by size, TTL or the broker); `too-many` over `limit`
        records or `max_bytes` of payload.

        Raises:
            BrokerClosed: Not started, or stopped.
            BrokerUnavailable: The broker cannot be reached.
        """

    @abstractmethod
    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Ask the broker where the logs end now.

        Raises:
            BrokerClosed: Not started, or stopped.
            BrokerUnavailable: The broker cannot be reached.
        """

    @abstractmethod
    async def send_control(self, payload: bytes) -> None:
        """Send a control message to all live nodes of the channel, own included; best effort.

        Raises:
            BrokerClosed: Not started, or stopped.
            BrokerUnavailable: The broker cannot be reached.
        """

    async def forget(self, topic: str) -> None:  # noqa: B027 -- optional ability: a log that cannot forget keeps
        """Drop the history of a topic; a later recovery that needed it is answered by `trimmed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a `BrokerInterface` hands to a node.

    Attributes:
        channel: As it was subscribed.
        payload: As it was published.
    """

    channel: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _NoOptions:
    """What a URL without options may have."""


class BrokerInterface(ABC):
    """The smallest broker: publish/subscribe on channels, at most once, no history.

    One object serves one node, on one event loop. Override `deliveries` or `get_message`; each is defined by the
    other. A broker that was written for the original library (it overrides `get_message`) works as it is: the core
    uses one channel, publishes a `dict` and expects a `Message` back.
    """

    capabilities: ClassVar[BrokerCapabilities] = BrokerCapabilities(cross_process=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.deliveries is BrokerInterface.deliveries and cls.get_message is BrokerInterface.get_message:
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__} overrides neither deliveries() nor get_message(), so nothing "
                "could be received. Fix: override deliveries(), an async iterator of Delivery"
            )

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build a broker; no I/O. The default takes nothing from the URL.

        Raises:
            InvalidBrokerURL: The URL has an option: there is none.
        """
        url.read_options(_NoOptions)
        return cls()

    @abstractmethod
    async def connect(self) -> None:
        """Connect.

        Raises:
            BrokerUnavailable: The broker cannot be reached; the message names the masked URL.
        """

    @abstractmethod
    async def disconnect(self) -> None:
        """Disconnect; ends `deliveries()`. Idempotent; leaves no task or socket."""

    @abstractmethod
    async def subscribe(self, channel: str) -> None:
        """Receive a channel from now on; return once a publish to it is certain to arrive. Idempotent."""

    @abstractmethod
    async def unsubscribe(self, channel: str) -> None:
        """Receive a channel no more; one that is not subscribed is no error."""

    @abstractmethod
    async def publish(self, channel: str, message: Any) -> None:
        """Send to every node that is subscribed to the channel, own included. Returns once the broker has it.

        Args:
            channel: Literal name, no wildcards.
            message: `bytes`. A broker of the original library (one that overrides `get_message`) gets a `dict`.

        Raises:
            PayloadTooLarge: Over `capabilities.max_payload_bytes`.
            BrokerClosed: Before `connect` or after `disconnect`.
            BrokerUnavailable: The broker cannot be reached.
        """

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Iterate over what arrives, until `disconnect`. One consumer; cancelling a wait loses nothing.

        Not called on a broker that overrides `get_message` instead.
        """
        raise NotImplementedError(f"{type(self).__qualname__} is read through get_message()")
        yield  # type: ignore[unreachable]  # makes this an async generator, as overriding methods are

    async def get_message(self, **kwargs: Any) -> Message | None:
        """Return the next message as the original library did; None: nothing to hand over.

        The default takes the next of `deliveries()` and reads its payload as JSON; None once they have ended.
        """
        async for delivery in self.deliveries():
            return Message.from_client_message(data=msgspec.json.decode(delivery.payload))
        return None
