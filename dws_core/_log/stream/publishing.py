"""The publishes of one partition on their way into the stream: in order, bounded, each with an exact outcome.

A publish waits in a queue until it becomes part of a *flight*: one envelope with fixed sequence numbers. A flight is
appended, and appended again after a lost connection, until the node's own tail contains it. Only the tail completes a
publish: what it shows is stored, and it knows the place of the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from dws_core._log.records import Receipt
from dws_core._log.stream.envelope import RECORD_BYTES, Draft
from dws_core._log.stream.settings import StreamSettings

T = TypeVar("T")

_OVERHEAD_BYTES: Final = 500
"""Memory of a waiting publish in addition to its content."""

_MAX_UNSEEN: Final = 64
"""Flights that the tail does not contain yet. A tail that is slow slows the publishers down."""


def most_bytes(draft: Draft) -> int:
    """Return the largest possible size of a record in an envelope: a character has at most four bytes."""
    names = len(draft.topic) if draft.key is None else len(draft.topic) + len(draft.key)
    return len(draft.payload) + 4 * names + RECORD_BYTES


class Failure(Enum):
    """Why a publish failed.

    Attributes:
        UNSENT: It was never sent, so it is certainly not stored.
        UNKNOWN: It was sent, and it may be stored.
    """

    UNSENT = "unsent"
    UNKNOWN = "unknown"


class Place(NamedTuple):
    """The place of a publish among those that keep their order through failures.

    Attributes:
        order: What they have in common.
        number: Increases with each publish of the partition.
    """

    order: Hashable
    number: int


class Waiting(msgspec.Struct, Generic[T]):
    """A publish.

    Attributes:
        ticket: What the caller gave for it, or None if its outcome was reported.
        draft: The record.
        due: Time of its deadline.
        size_bytes: Its size in an envelope.
        place: Its place among the publishes that keep their order through failures, or None.
        after: A publish of the same topic in another queue that must have an outcome first, or None.
    """

    ticket: T | None
    draft: Draft
    due: float
    size_bytes: int
    place: Place | None = None
    after: Waiting[T] | None = None

    @property
    def is_free(self) -> bool:
        """Whether it may be sent."""
        return self.after is None or self.after.ticket is None


class Step(Enum):
    """Where a flight is: to be sent, about to be passed to the wire, passed to it, or confirmed by it."""

    READY = "ready"
    TAKEN = "taken"
    AIR = "air"
    DONE = "done"


_IN_AIR: Final = (Step.TAKEN, Step.AIR)


@dataclass(slots=True, eq=False)
class Flight(Generic[T]):
    """One envelope's publishes.

    Attributes:
        first: Sequence number of the first one.
        items: The publishes.
        step: Where it is.
        maybe: Whether an earlier append of it may be stored.
        time_ms: Time of its first append, which its records keep: the window of keys is measured by it.
    """

    first: int
    items: list[Waiting[T]]
    step: Step = Step.READY
    maybe: bool = False
    time_ms: int = 0

    @property
    def last(self) -> int:
        """Sequence number of the last publish."""
        return self.first + len(self.items) - 1

    @property
    def drafts(self) -> list[Draft]:
        """The records."""
        return [item.draft for item in self.items]


Outcomes: TypeAlias = list[tuple[T, Receipt | Failure]]


@dataclass(slots=True)
class PublishQueue(Generic[T]):
    """The publishes of one partition.

    Attributes:
        settings: The bounds.
        max_bytes: Largest size of the records in an envelope that the stream accepts, in bytes.
        acknowledged: Highest sequence number that the node's tail contains, 0 for none in this stream.
    """

    settings: StreamSettings
    acknowledged: int = 0
    max_bytes: int = 2**31
    _next: int = 1
    _bytes: int = 0
    _open: bool = False
    _window: int = 1
    _waiting: deque[Waiting[T]] = field(default_factory=deque)
    _flights: deque[Flight[T]] = field(default_factory=deque)
    _latest: dict[str, Waiting[T]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of publishes without an outcome."""
        return sum(item.ticket is not None for item in self._items())

    def add(self, item: Waiting[T]) -> bool:
        """Queue a publish. Return False if the queue is full."""
        size = self._bytes + item.size_bytes + _OVERHEAD_BYTES
        if self._bytes and size > self.settings.queue_bytes:
            return False
        self._bytes = size
        self._waiting.append(item)
        return True

    def add_after(self, other: PublishQueue[T], item: Waiting[T]) -> bool:
        """Queue a publish that is sent after all publishes of its topic in another queue. Return False if full."""
        if not self.add(item):
            return False
        self._latest[item.draft.topic] = item
        item.after = other._latest.get(item.draft.topic)
        return True

    def opened(self, *, again: bool) -> Outcomes[T]:
        """Begin to send on a verified connection.

        Args:
            again: Whether the stream was read again from its recent past, not from where the tail was. Then a flight may
                be stored before that, and is not sent again.
        """
        self._open, self._window = True, 1
        if not again:
            return []
        self.acknowledged = 0
        stale = [flight for flight in self._flights if flight.maybe]
        return [outcome for flight in stale for outcome in self._give_up(flight, Failure.UNKNOWN)]

    def closed(self) -> None:
        """Stop sending: the connection is lost. What was sent on it without a confirmation may be stored."""
        self._open = False
        for flight in self._flights:
            flight.maybe = flight.maybe or flight.step in {Step.AIR, Step.DONE}
            flight.step = Step.READY
        self._drop_abandoned()

    def next_flight(self, now_ms: int) -> Flight[T] | None:
        """Return the next envelope to append, or None. The caller reports `sent`, then `confirmed`, `failed` or `refused`."""
        if not self._open or not (self._waiting or self._flights) or (in_air := self._in_air()) >= self._window:
            return None
        flight = next((flight for flight in self._flights if flight.step is Step.READY), None)
        if flight is None and len(self._flights) < _MAX_UNSEEN and (not in_air or self._fills_envelope()):
            flight = self._form()
        if flight is not None:
            flight.step, flight.time_ms = Step.TAKEN, flight.time_ms or now_ms
        return flight

    def sent(self, flight: Flight[T]) -> None:
        """Note that the envelope is passed to the wire now."""
        flight.step = Step.AIR

    def confirmed(self, flight: Flight[T]) -> None:
        """Note that the wire reported the envelope as stored. The tail decides."""
        if flight.step is Step.AIR:
            flight.step, self._window = Step.DONE, self.settings.in_flight

    def failed(self, flight: Flight[T], *, sent: bool) -> None:
        """Note that an append failed. The envelope is sent again, in order."""
        if flight.step in _IN_AIR:
            flight.step, self._window = Step.READY, 1
            flight.maybe = flight.maybe or sent

    def refused(self, flight: Flight[T]) -> Outcomes[T]:
        """Give up an envelope that the broker refused."""
        return self._give_up(flight, Failure.UNKNOWN if flight.maybe else Failure.UNSENT)

    def stored(self, first: int, receipts: list[Receipt]) -> Outcomes[T]:
        """Note that the node's tail contains these publishes. Older ones that it does not contain were overtaken."""
        outcomes: Outcomes[T] = []
        self.acknowledged = max(self.acknowledged, first + len(receipts) - 1)
        while self._flights and self._flights[0].first <= self.acknowledged:
            flight = self._flights.popleft()
            overtaken = self._failure(flight)
            for index, item in enumerate(flight.items, flight.first - first):
                self._report(item, receipts[index] if 0 <= index < len(receipts) else overtaken, outcomes)
        return outcomes

    def expire(self, now: float) -> Outcomes[T]:
        """Fail the publishes whose deadline has passed. A taken flight is decided later, when it was sent or not."""
        outcomes: Outcomes[T] = []
        for flight in (flight for flight in self._flights if flight.step is not Step.TAKEN):
            failure = self._failure(flight)
            for item in [item for item in flight.items if item.due <= now]:
                self._report(item, failure, outcomes)
                if failure is Failure.UNSENT:
                    flight.items.remove(item)
        self._flights = deque(flight for flight in self._flights if flight.items)
        for item in (expired := [item for item in self._waiting if item.due <= now]):
            self._report(item, Failure.UNSENT, outcomes)
        if expired:
            self._waiting = deque(item for item in self._waiting if item.due > now)
        return outcomes

    def fail_after(self, failed: Mapping[Hashable, int]) -> Outcomes[T]:
        """Fail the publishes whose predecessors have failed. Those that were not passed to the wire are not sent.

        Args:
            failed: For each order, the number of the first publish that has failed.
        """
        outcomes: Outcomes[T] = []
        for flight in self._flights:
            followers = [item for item in flight.items if _follows(item, failed)]
            is_unsent = flight.step in {Step.READY, Step.TAKEN} and not flight.maybe
            for item in followers:
                self._report(item, Failure.UNSENT if is_unsent else Failure.UNKNOWN, outcomes)
                if is_unsent:
                    flight.items.remove(item)
        self._flights = deque(flight for flight in self._flights if flight.items)
        for item in (followers := [item for item in self._waiting if _follows(item, failed)]):
            self._report(item, Failure.UNSENT, outcomes)
        if followers:
            self._waiting = deque(item for item in self._waiting if item.ticket is not None)
        return outcomes

    def next_due(self) -> float | None:
        """Return the earliest deadline."""
        return min((item.due for item in self._items() if item.ticket is not None), default=None)

    def drain(self) -> Outcomes[T]:
        """Give up everything."""
        outcomes = [outcome for flight in self._flights for outcome in self._reports(flight, self._failure(flight))]
        for item in self._waiting:
            self._report(item, Failure.UNSENT, outcomes)
        self._flights.clear()
        self._waiting.clear()
        return outcomes

    def _items(self) -> Iterator[Waiting[T]]:
        for flight in self._flights:
            yield from flight.items
        yield from self._waiting

    def _in_air(self) -> int:
        return sum(flight.step in _IN_AIR for flight in self._flights)

    def _fills_envelope(self) -> bool:
        """Whether the waiting publishes fill an envelope. A smaller one waits for the confirmation of the one before it.

        So the envelopes become larger when the broker becomes slower (as in Nagle's algorithm, RFC 896).
        """
        if len(self._waiting) >= self.settings.envelope_records:
            return True
        return sum(item.size_bytes for item in self._waiting) >= self.settings.envelope_bytes

    def _form(self) -> Flight[T] | None:
        items: list[Waiting[T]] = []
        room = min(self.settings.envelope_bytes, self.max_bytes)
        for item in islice(self._waiting, self.settings.envelope_records):
            room -= item.size_bytes
            if (items and room < 0) or not item.is_free:
                break
            items.append(item)
        if not items:
            return None
        for _ in items:
            self._waiting.popleft()
        flight = Flight(self._next, items)
        self._next += len(items)
        self._flights.append(flight)
        return flight

    def _failure(self, flight: Flight[T]) -> Failure:
        return Failure.UNKNOWN if flight.maybe or flight.step is not Step.READY else Failure.UNSENT

    def _give_up(self, flight: Flight[T], failure: Failure) -> Outcomes[T]:
        if flight in self._flights:
            self._flights.remove(flight)
        return self._reports(flight, failure)

    def _drop_abandoned(self) -> None:
        """Drop the last flights if nobody waits for them. Earlier ones are sent again, so that the order remains."""
        while self._flights and all(item.ticket is None for item in self._flights[-1].items):
            self._flights.pop()

    def _reports(self, flight: Flight[T], outcome: Failure) -> Outcomes[T]:
        outcomes: Outcomes[T] = []
        for item in flight.items:
            self._report(item, outcome, outcomes)
        return outcomes

    def _report(self, item: Waiting[T], outcome: Receipt | Failure, outcomes: Outcomes[T]) -> None:
        """Add the outcome of a publish, unless it was reported."""
        if (ticket := item.ticket) is not None:
            item.ticket = item.after = None
            self._bytes -= item.size_bytes + _OVERHEAD_BYTES
            if self._latest and self._latest.get(item.draft.topic) is item:
                del self._latest[item.draft.topic]
            outcomes.append((ticket, outcome))


def _follows(item: Waiting[T], failed: Mapping[Hashable, int]) -> bool:
    """Return whether a publish that this one must not overtake has failed."""
    place = item.place
    return item.ticket is not None and place is not None and place.number > failed.get(place.order, place.number)
