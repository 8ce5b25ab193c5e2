"""`StreamWire`: what the author of a stream broker writes, and the errors with which a wire reports failures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from dws_core._log.records import Layout


class Start(Enum):
    """Where `StreamWire.follow` starts if no offset is known.

    Attributes:
        FIRST: The oldest record that is still stored.
        LAST: A record at or before the end of the stream, as close to the end as the broker can tell. Only used if
            `append` does not return the offset.
    """

    FIRST = "first"
    LAST = "last"


class WireError(Exception):
    """Base of the errors that a wire raises."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WireLost(WireError):
    """The connection is unusable.

    Args:
        cause: A few words for `health()`, without secrets.
        sent: Whether the envelope of this append may be stored. If False, it certainly never left the wire.
    """

    def __init__(self, cause: str, *, sent: bool = True) -> None:
        super().__init__(cause)
        self.sent = sent


class WireRefused(WireError):
    """The broker certainly did not store this envelope, and would refuse it again. Later appends may succeed."""


class WireBlocked(WireError):
    """The broker accepts no appends at the moment. The base class tries again on this wire.

    Args:
        cause: A few words for `health()`, without secrets.
        sent: Whether the envelope may still be stored, because it was sent before the wire noticed. Then it must be
            stored before every later append.
    """

    def __init__(self, cause: str, *, sent: bool = False) -> None:
        super().__init__(cause)
        self.sent = sent


class WireOutOfRange(WireError):
    """The start of a `scan` or `follow` is not stored: it was removed, or is beyond the end.

    Args:
        partition: Number of the partition.
        start: The offset that is not stored.
    """

    def __init__(self, partition: int, start: int) -> None:
        super().__init__(f"partition {partition} has no offset {start}")
        self.partition = partition
        self.start = start


class WireUnusable(WireError):
    """From `open`: a retry does not help, for example because of a missing permission or a wrong stream type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireInfo:
    """What a wire knows about its streams after `open`.

    Attributes:
        max_bytes: Largest envelope that a stream accepts, in bytes. The base class makes no larger one. An envelope
            contains topics and keys, so this should be 64 KiB more than `LogCapabilities.max_payload_bytes`.
        max_skip: Number of offsets that may be missing between two records although nothing was removed. Zero if offsets
            have no holes, None if any number is normal. Every larger jump is announced as a gap.
        stores: Whether the broker can store. If False, the base class only calls `send_control` and `controls`, and the
            node works without history and recovery until it is started again.
        warnings: Sentences about risks of the server or its settings. The base class logs each of them once.
    """

    max_bytes: int = 1_114_112
    max_skip: int | None = 0
    stores: bool = True
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBounds:
    """The ends of a stream.

    Attributes:
        first: Offset of the oldest record that is still stored. Equals `next` if the stream is empty.
        next: Offset that the next record will receive.
        identity: Opaque text that changes if the stream is deleted and created again, or None if the broker has none.
    """

    first: int
    next: int
    identity: str | None = None


class StreamWire(ABC):
    """One connection to a broker that keeps one append-only stream per partition.

    The base class opens a wire, uses it until its first failure, closes it and opens another one. All methods may run
    concurrently. Offsets are integers from 0 or 1, and grow with each append. Data is opaque.

    A wire follows these rules:

    - *Prefix*: appends of a partition are stored in the order of the calls. After an append has raised `WireLost` or
      `WireBlocked`, no append of the same partition that was called later and before the error was raised may be stored.
      Only appends that raise a `WireBlocked` with `sent` may be stored later, in their order.
    - *Deadline*: an append ends within `append_timeout_s`, because a confirmation may never arrive.
    - *Reads apart*: `scan` does not delay `follow`, and a `WireLost` of `scan` does not end the wire.
    - *Silence*: a `follow` that starts beyond the end may wait without an error. The base class has the deadlines.
    - *Cancellation*: a `CancelledError` of a client library becomes `WireLost` if
      `asyncio.current_task().cancelling()` is 0. A real cancellation passes.
    - *Closed*: after `close`, every method raises `WireLost`. A read may still be in progress.

    Any other exception ends the wire, too. It is logged as a defect of the plugin.
    """

    @abstractmethod
    async def open(self, layout: Layout, *, append_timeout_s: float) -> WireInfo:
        """Connect, and create or check the streams of the channel, within `StreamSettings.step_s` seconds.

        Args:
            layout: The channel and its number of partitions.
            append_timeout_s: Maximum duration of an append, in seconds.

        Raises:
            WireLost: The broker cannot be reached.
            WireUnusable: A retry does not help.
            LayoutMismatch: The channel exists with another layout.
        """

    @abstractmethod
    async def close(self) -> None:
        """Abort everything within one second. Flush nothing, raise nothing. May be called after a failed `open`."""

    @abstractmethod
    async def append(self, partition: int, data: bytes) -> int | None:
        """Append an envelope and return when it is stored.

        Returns:
            Its offset, or None if the broker does not report it.

        Raises:
            WireLost: Its `sent` states whether the envelope may be stored.
            WireRefused: The envelope is certainly not stored, and would be refused again.
            WireBlocked: The broker accepts nothing at the moment. Its `sent` states whether the envelope may be stored.
        """

    @abstractmethod
    def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        """Iterate over the records of one partition from `start` to `stop`, both included, as offset and data.

        `stop` is the offset of a stored record. `start` may be in a hole: the scan begins with the next record. The
        caller may stop before the end, and calls `aclose` on a generator.

        Raises:
            WireOutOfRange: `start` was removed, or is beyond the end, or records disappear during the scan.
            WireLost: The connection for reads failed. The wire stays usable.
        """

    @abstractmethod
    def follow(self, starts: Mapping[int, int | Start]) -> AsyncIterator[tuple[int, int, bytes]]:
        """Iterate over the records of several partitions, as partition, offset and data, and wait for new ones.

        Each partition begins with its start, included. May be called several times, also at the same time.

        Raises:
            WireOutOfRange: A start was removed, or is beyond the end. Waiting is allowed, too.
            WireLost: The connection is unusable.
        """

    async def bounds(self, partition: int) -> StreamBounds | None:
        """Return the ends of a stream, or None if the broker cannot tell. The default returns None.

        Raises:
            WireLost: The connection is unusable.
        """
        return None

    async def send_control(self, data: bytes) -> None:
        """Send to all connected nodes of the channel, this one included, without storing. Optional.

        It carries control messages, and the messages of topics without history. Each node receives those of another one
        in the order of the calls. Some may be lost or repeated. A wire that overrides this also overrides `controls`.
        Without both, everything goes through the streams.

        Raises:
            WireLost: As for `append`.
            WireRefused: As for `append`.
            WireBlocked: As for `append`.
        """
        raise NotImplementedError

    async def controls(self) -> AsyncIterator[bytes]:
        """Iterate over the data of `send_control` from all nodes. Optional.

        Raises:
            WireLost: The connection is unusable.
        """
        raise NotImplementedError
        yield  # type: ignore[unreachable]  # makes this an async generator, as overriding methods are


def sends_to_all(wire: StreamWire) -> bool:
    """Return whether a wire can send to all nodes without storing."""
    return type(wire).send_control is not StreamWire.send_control
