"""The contract of a broker with a log: `LogBroker`, and `TailSink`, to which it delivers.

A node tails the partitions it needs and receives every record stored in them, without holes.
`dws_core._log.plain` has the smaller contract of a broker without a log. The node adapts it to this one.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NoReturn, Protocol, Self

from dws_core._log.records import (
    BrokerState,
    GapReason,
    Head,
    History,
    Layout,
    Offset,
    ReadResult,
    ReadSpan,
    Receipt,
    Record,
)

if TYPE_CHECKING:
    from asyncio import Future

    from dws_core._url import BrokerURL


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCapabilities:
    """Guarantees of a `LogBroker`. They select its conformance tests and fill the capability matrix in the docs.

    Attributes:
        recovery: Whether `read` can return missed records.
        durable: Strongest event that stored messages survive: none, the end of the process, a crash (disk), the loss of a
            server (replicated).
        cross_process: Whether nodes in different processes receive each other's messages.
        per_topic_retention: Whether the broker itself applies size and TTL of `History`.
        exact_gap: Whether a gap is reported only if a record was really missed. If False, a gap is also reported
            whenever a loss cannot be ruled out.
        partition_interest: Whether `set_interest` really reduces what is received.
        max_payload_bytes: Maximum payload size, in bytes. A larger one raises `PayloadTooLarge`.
        max_topic_bytes: Maximum topic length, in bytes of UTF-8.
        idle_ops_per_s: Maximum number of requests per second that an idle node sends to the broker.
    """

    recovery: bool = True
    durable: Literal["none", "process", "disk", "replicated"] = "none"
    cross_process: bool = True
    per_topic_retention: bool = True
    exact_gap: bool = False
    partition_interest: bool = False
    max_payload_bytes: int = 1_048_576
    max_topic_bytes: int = 1024
    idle_ops_per_s: float = 10.0


class TailSink(Protocol):
    """Receives what a `LogBroker` delivers to its node.

    The core implements it. The broker calls it on the node's event loop. No method blocks.
    """

    def on_records(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        """Deliver every record stored in `(lo, hi]`, in order, each once.

        `lo` equals `hi` of the previous call. `records` may be empty, which only advances the watermark. Records of
        topics without history (offset None) are included in the order of publishing to their topic.
        """
        ...

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        """Set a new baseline: the records between the last `hi` and `head.offset` are lost to this node."""
        ...

    def on_control(self, sender: bytes, payload: bytes) -> None:
        """Deliver a control message, perhaps twice. Nodes also receive their own."""
        ...

    def on_state(self, state: BrokerState, detail: str) -> None:
        """Report the state of the connection to the broker. `detail` is one sentence without secrets."""
        ...


_PLAIN_METHODS: Final = ("connect", "disconnect", "subscribe", "unsubscribe", "get_message", "deliveries")
"""Methods of `BrokerInterface`, which a `LogBroker` does not have."""


class LogBroker(ABC):
    """Partition logs with positions, history and recovery.

    One object serves one node. All methods are called on the event loop that called `start`. Exceptions of a client
    library never escape: wrap them in a `BrokerError` and keep the original as `__cause__`.
    """

    capabilities: ClassVar[LogCapabilities]
    partitions: ClassVar[int] = 1
    """Number of partitions of a channel, unless the application chooses another."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "publish" in vars(cls) and not _accepts_records(cls.publish):
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__} overrides publish() with other arguments than LogBroker.publish, so "
                "the node could not publish. Fix: override publish(partition, topic, payload, *, history, key, deadline_s), "
                "which returns a future, or derive from BrokerInterface, whose publish() has (channel, message)"
            )
        unused = [name for name in _PLAIN_METHODS if name in vars(cls)]
        complete = [b for b in cls.__bases__ if issubclass(b, LogBroker) and not getattr(b, "__abstractmethods__", ())]
        if unused and complete:
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__} defines {unused[0]}(), which the node never calls, because "
                f"{complete[0].__qualname__} is a LogBroker. Fix: override the methods of LogBroker, or derive from "
                "BrokerInterface"
            )

    if not TYPE_CHECKING:  # type checkers report these names without help

        def __getattr__(self, name: str) -> NoReturn:
            """Raise an error that explains a missing method of `BrokerInterface`."""
            text = f"{type(self).__qualname__!r} object has no attribute {name!r}"
            if name in _PLAIN_METHODS:
                text += (
                    ", because it is a LogBroker. A node starts and stops it. "
                    "Fix: pass it to WebSocketManager(broker=...), and publish with the manager"
                )
            raise AttributeError(text, name=name, obj=self)

    @classmethod
    @abstractmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build a broker without I/O.

        Raises:
            InvalidBrokerURL: An option is unknown or malformed. `url.read_options` raises it and lists the valid ones.
        """

    @abstractmethod
    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Connect. Return when publishing works.

        Args:
            node: 8 random bytes that identify this start of the node: the publisher id of its records.
            layout: The channel and its partitions.
            sink: Receives records, gaps, control messages and states.

        Raises:
            BrokerUnavailable: The broker cannot be reached. The message names the masked URL.
            LayoutMismatch: The channel exists with another layout.
            BrokerMisconfigured: The broker's settings break a guarantee.
        """

    @abstractmethod
    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Flush pending publishes for at most `drain_s` seconds, fail the rest, leave no task or socket. Idempotent.

        Do not call the sink after this method has returned.
        """

    @abstractmethod
    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Choose the partitions to tail. The last call wins.

        Return once each partition is live: from then on, every record that any node's publish acknowledges is delivered
        to the sink. The heads are the baseline: the first `lo` of each partition equals its `offset`.

        Raises:
            BrokerClosed: The broker is not started, or stopped.
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
        order: Hashable | None = None,
        deadline_s: float = 10.0,
    ) -> Future[Receipt]:
        """Store a message and send it to every node that tails the partition, in one atomic step.

        Never suspends. Needs a running event loop. FIFO for each topic, and for all messages with history of a partition.
        The future resolves when the broker has stored the message. Cancelling it does not withdraw the message.

        Args:
            partition: The partition of the topic.
            topic: A valid topic of at most `capabilities.max_topic_bytes`.
            payload: Opaque bytes.
            history: How much of the topic to keep, this message included. If its `size` is 0, deliver and keep nothing.
            key: Idempotency key of 1 to 1,024 bytes of UTF-8. A repeat of (channel, topic, key) within 60 s stores
                nothing and returns the first receipt.
            order: Publishes of the partition with the same value keep their order through failures. When one of them
                fails, each later one that has no receipt yet fails in the same step: with `BrokerUnavailable` if it is
                certainly not stored, and then it is not sent, or with `PublishOutcomeUnknown`. If None, no other publish
                depends on this one.
            deadline_s: Timeout in seconds, after which the future fails.

        Raises (through the future):
            PayloadTooLarge: Over `capabilities.max_payload_bytes`. Nothing was sent.
            BrokerClosed: The broker is not started, or stopped.
            BrokerUnavailable: The message is certainly not stored.
            BrokerOverloaded: The publish queue is full. The message is certainly not stored.
            PublishOutcomeUnknown: The message may be stored.
        """

    @abstractmethod
    async def read(self, span: ReadSpan) -> ReadResult:
        """Return all records of a span, or a gap. Never a part.

        The result is a gap with the reason `epoch` if the partition has another epoch, `ahead` if the log ends before
        `span.since`, `trimmed` if a wanted record may have been dropped (by size, TTL or the broker), and `too-many`
        if more than `span.limit` records or `span.max_bytes` of payload match.

        Raises:
            BrokerClosed: The broker is not started, or stopped.
            BrokerUnavailable: The broker cannot be reached.
        """

    @abstractmethod
    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Return the current ends of the logs, as the broker reports them.

        Raises:
            BrokerClosed: The broker is not started, or stopped.
            BrokerUnavailable: The broker cannot be reached.
        """

    @abstractmethod
    async def send_control(self, payload: bytes) -> None:
        """Send a control message to all live nodes of the channel, including this one, whatever partitions they tail.

        Best effort: a message may be lost, arrive twice, or arrive in another order. It has no position and no history.

        Raises:
            BrokerClosed: The broker is not started, or stopped.
            BrokerUnavailable: The broker cannot be reached.
        """


def _accepts_records(publish: Any) -> bool:
    """Return whether the core can call a `publish` method, which returns a future and not a coroutine."""
    try:
        inspect.signature(publish).bind(None, 0, "topic", b"", history=None, key=None, deadline_s=1.0)
    except TypeError:
        return False
    return not inspect.iscoroutinefunction(publish)
