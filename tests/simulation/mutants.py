"""Small changes of the base class. Each breaks one rule, and the simulation finds it within `SEEDS` seeds.

The table does not cover every rule. The simulation does not find, for example, a node that accepts repeats of a publisher
or ignores jumps of the offsets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from dws_core._log.stream.dedupe import Dedupe
from dws_core._log.stream.envelope import readable
from dws_core._log.stream.epochs import Claim, Epochs
from dws_core._log.stream.index import TopicIndex
from dws_core._log.stream.io import joining
from dws_core._log.stream.partition_log import PartitionLog
from dws_core._log.stream.publishing import Failure, PublishQueue, Step
from dws_core._log.stream.tail import Moved, StreamTail
from dws_core._log.watchdog import Watchdog
from dws_core.plugin import GapReason

SEEDS = 150
"""Number of seeds within which the simulation finds each change."""


@dataclass(frozen=True)
class Mutant:
    """A change.

    Attributes:
        name: What it does.
        rule: The rule that it breaks.
        owner: Class or module that it changes.
        attribute: Name of the function.
        make: Returns the changed function from the original one.
    """

    name: str
    rule: str
    owner: Any
    attribute: str
    make: Callable[[Any], Any]

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Change the base class in the block."""
        original = self.owner.__dict__[self.attribute]
        setattr(self.owner, self.attribute, self.make(original))
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, original)


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda original: lambda *args, **kwargs: value


def _renumber(original: Any) -> Any:
    def closed(self: Any) -> None:
        original(self)
        while self._flights:
            self._waiting.extendleft(reversed(self._flights.pop().items))

    return closed


def _judge_by_identity_only(original: Any) -> Any:
    def judge(self: Any, probe_offset: int, bounds: Any) -> Any:
        return original(self, 2**60, bounds)

    return judge


def _resume_anywhere(original: Any) -> Any:
    def resumed(self: Any, offset: int, data: bytes) -> Any:
        self.is_resuming = False
        return []

    return resumed


def _resume_after(original: Any) -> Any:
    def resume(self: Any) -> int:
        return self.offset + 1

    return resume


def _trust(original: Any) -> Any:
    def note(self: Any, moved: Moved) -> None:
        original(self, replace(moved, suspect=False))

    return note


def _every_genesis(original: Any) -> Any:
    return lambda self, offset, envelope: Claim(envelope.epoch, offset)


def _never_a_new_genesis(original: Any) -> Any:
    return lambda self, offset, envelope: original(self, offset, envelope) if self.current is None else None


def _raise_unreadable(original: Any) -> Any:
    def feed(self: Any, offset: int, data: bytes) -> Any:
        if readable(data) is None:
            raise ValueError("no envelope")
        return original(self, offset, data)

    return feed


def _expire_reports_only(original: Any) -> Any:
    def expire(self: Any, now: float) -> Any:
        return [outcome for item in self._items() if item.due <= now for outcome in self._report(item, Failure.UNSENT)]

    return expire


def _last_in_first_out(original: Any) -> Any:
    def form(self: Any) -> Any:
        self._waiting.reverse()
        return original(self)

    return form


def _no_window_at_start(original: Any) -> Any:
    async def look_back(scanner: Any, end: int, time_ms: int) -> Any:
        start, claim = await original(scanner, end, time_ms)
        return (end, claim) if claim else (start, claim)

    return look_back


def _wrong_receipts(original: Any) -> Any:
    return lambda self, first, receipts: original(self, first, receipts[::-1])


def _new_stamp(original: Any) -> Any:
    def next_flight(self: Any, now_ms: int) -> Any:
        flight = original(self, now_ms)
        if flight is not None:
            flight.time_ms = now_ms
        return flight

    return next_flight


def _stay_ready(original: Any) -> Any:
    def closed(self: Any) -> None:
        for flight in self._flights:
            flight.step = Step.READY
        self._open = False

    return closed


def _forget_baseline(original: Any) -> Any:
    def baseline(self: Any, tail: Any) -> Any:
        original(self, tail)
        return []

    return baseline


def _trim_reason(original: Any) -> Any:
    return lambda self, tail: [replace(event, reason=GapReason.TRIMMED) for event in original(self, tail)]


def _no_dead(original: Any) -> Any:
    def check(self: Any, now: float) -> Any:
        found = original(self, now)
        if found == "dead":
            self.heard(now)
            return "wait"
        return found

    return check


def _no_probe(original: Any) -> Any:
    def check(self: Any, now: float) -> Any:
        self.heard(now)
        return "wait"

    return check


def _no_sort(original: Any) -> Any:
    def select(self: Any, span: Any, now_ms: int) -> Any:
        found = original(self, span, now_ms)
        return found[:-1] if isinstance(found, list) else found

    return select


MUTANTS = [
    Mutant("accept repeats of a key", "deduplication by key", Dedupe, "find_key", _always(None)),
    Mutant("resend with new numbers", "unchanged sequence numbers", PublishQueue, "closed", _renumber),
    Mutant("forget that it was sent", "exact outcomes", PublishQueue, "closed", _stay_ready),
    Mutant("report unknown as unsent", "exact outcomes", PublishQueue, "_failure", _always(Failure.UNSENT)),
    Mutant("send what has expired", "unsent never appears", PublishQueue, "expire", _expire_reports_only),
    Mutant("send the newest first", "first in, first out", PublishQueue, "_form", _last_in_first_out),
    Mutant("mix up receipts", "receipts from the tail", PublishQueue, "stored", _wrong_receipts),
    Mutant("stamp a resend anew", "window of keys", PublishQueue, "next_flight", _new_stamp),
    Mutant("judge without the probe's offset", "verdict: probe", PartitionLog, "judge", _judge_by_identity_only),
    Mutant("resume at any record", "verdict: last record", StreamTail, "_resumed", _resume_anywhere),
    Mutant("resume after the last record", "inclusive follow", StreamTail, "resume", _resume_after),
    Mutant("trust a stream that was set back", "new epoch after a loss", PartitionLog, "_note", _trust),
    Mutant("report the baseline without a gap", "gap after a fresh start", PartitionLog, "_baseline", _forget_baseline),
    Mutant("name a new epoch trimmed", "reason of a gap", PartitionLog, "_baseline", _trim_reason),
    Mutant("adopt every genesis", "lowest offset wins", Epochs, "_started", _every_genesis),
    Mutant("adopt no other genesis", "a genesis replaces its parent", Epochs, "_started", _never_a_new_genesis),
    Mutant("stop at unreadable envelopes", "unreadable stops no tail", StreamTail, "feed", _raise_unreadable),
    Mutant("start without the past", "a node reads one window back", joining, "look_back", _no_window_at_start),
    Mutant("lose the last record of a read", "complete reads", TopicIndex, "select", _no_sort),
    Mutant("never give up a connection", "watchdog", Watchdog, "check", _no_dead),
    Mutant("never probe", "probes when idle", Watchdog, "check", _no_probe),
]
