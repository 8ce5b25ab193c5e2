"""Small changes of the base class. Each breaks one rule, and the simulation or a unit test finds it.

The rules and parts are those of `docs/explanation/stream-log.md`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from dws_core._log.stream import index
from dws_core._log.stream.dedupe import Dedupe
from dws_core._log.stream.envelope import Kind, readable
from dws_core._log.stream.epochs import Claim, Epochs
from dws_core._log.stream.index import Selection
from dws_core._log.stream.io import joining
from dws_core._log.stream.io.appender import Appender
from dws_core._log.stream.io.reader import Reader
from dws_core._log.stream.io.reports import Reports
from dws_core._log.stream.partition_log import PartitionLog
from dws_core._log.stream.publishing import Failure, PublishQueue, Step
from dws_core._log.stream.reading import Picker
from dws_core._log.stream.tail import INDEX_BITS, Moved, StreamTail
from dws_core._log.watchdog import Watchdog
from dws_core.plugin import GapReason

SEEDS = 300
"""Number of seeds within which the simulation finds a change."""

RULES = {
    "rule 1": "verdict after a reconnect",
    "rule 2": "only a genesis starts an epoch",
    "rule 3": "receipts come from the tail",
    "rule 4": "previous record of the publisher",
    "rule 5": "slow start",
    "rule 6": "jumps of the offsets",
    "part 1": "envelopes",
    "part 2": "publishing",
    "part 3": "tail",
    "part 4": "epochs",
    "part 5": "deduplication",
    "part 6": "history and reads",
    "part 7": "states",
}


@dataclass(frozen=True)
class Mutant:
    """A change.

    Attributes:
        rule: The rule or part that it breaks, a key of `RULES`.
        name: Description of the change.
        owner: Class or module that it changes.
        attribute: Name of the function.
        make: Returns the changed function from the original one.
        unit: Name of the unit test that finds it, as `module:function`. If empty, the simulation finds it.
    """

    rule: str
    name: str
    owner: Any
    attribute: str
    make: Callable[[Any], Any]
    unit: str = ""

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Change the base class in the block."""
        original = self.owner.__dict__[self.attribute]
        setattr(self.owner, self.attribute, self.make(original))
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, original)


def table() -> str:
    """Return all mutants with their rules, and the test that finds each."""
    lines = [(RULES[m.rule], m.name, m.unit or "simulation") for m in MUTANTS]
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    return "\n".join(f"{rule:{widths[0]}}  {name:{widths[1]}}  {found}" for rule, name, found in lines)


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda original: lambda *args, **kwargs: value


def _renumber(original: Any) -> Any:
    def closed(self: Any) -> None:
        original(self)
        while self._flights:
            self._waiting.extendleft(reversed(self._flights.pop().items))

    return closed


def _repeated_by_connection(original: Any) -> Any:
    def repeated(self: Any, publisher: bytes, first: int, count: int) -> int:
        original(self, publisher, first, count)
        return 0

    return repeated


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


def _early_receipts(original: Any) -> Any:
    def feed(self: Any, offset: int, data: bytes, new_epoch: Any, now_ms: int) -> Any:
        events = original(self, offset, data, new_epoch, now_ms)
        early, self._early = self._early, []
        return [*early, *events]

    return feed


def _skip_unreadable(original: Any) -> Any:
    def feed(self: Any, offset: int, data: bytes) -> Any:
        return original(self, offset, data) if readable(data) else []

    return feed


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


def _wide_window(original: Any) -> Any:
    def opened(self: Any, *, again: bool) -> Any:
        outcomes = original(self, again=again)
        self._window = self.settings.in_flight
        return outcomes

    return opened


def _send_stale(original: Any) -> Any:
    return lambda self, *, again: original(self, again=False)


def _unbounded(original: Any) -> Any:
    def add(self: Any, item: Any) -> Any:
        self._bytes, before = 0, self._bytes
        original(self, item)
        self._bytes += before
        return True

    return add


def _no_window_at_start(original: Any) -> Any:
    async def look_back(scanner: Any, end: int, time_ms: int) -> Any:
        start, claim = await original(scanner, end, time_ms)
        return (end, claim) if claim else (start, claim)

    return look_back


def _partial_reads(original: Any) -> Any:
    def result(self: Any) -> Any:
        self._left.clear()
        return original(self)

    return result


def _wrong_receipts(original: Any) -> Any:
    return lambda self, first, receipts: original(self, first, receipts[::-1])


def _new_stamp(original: Any) -> Any:
    def next_flight(self: Any, now_ms: int) -> Any:
        flight = original(self, now_ms)
        if flight is not None:
            flight.time_ms = now_ms
        return flight

    return next_flight


def _always_trimmed(original: Any) -> Any:
    return lambda self: self._note(Moved(GapReason.TRIMMED))


def _forget_identity(original: Any) -> Any:
    return lambda self, probe_offset, bounds: original(self, probe_offset, bounds and replace(bounds, identity=None))


def _no_read_back(original: Any) -> Any:
    async def start(self: Any, place: int, end: int) -> Any:
        return place >> INDEX_BITS, self._tail.claim

    return start


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


def _keep_all(original: Any) -> Any:
    return lambda newest_first, until, now_ms: 0


def _lose_last(original: Any) -> Any:
    def result(self: Any) -> Any:
        found = original(self)
        return found[:-1] if isinstance(found, list) else found

    return result


def _no_limit(original: Any) -> Any:
    def result(self: Any) -> Any:
        self._span = replace(self._span, limit=2**31)
        return original(self)

    return result


def _ahead_is_empty(original: Any) -> Any:
    return lambda self, place: False


def _exact_probe(original: Any) -> Any:
    """Only the verdict probe itself decides, so a lost one is waited for without end."""

    def feed(self: Any, offset: int, data: bytes, new_epoch: Any, now_ms: int) -> Any:
        envelope = readable(data)
        is_later = envelope and envelope.kind is Kind.PROBE and envelope.first > self._verdict_probe
        before = self._verdict_probe
        self._verdict_probe = 2**60 if is_later else before
        try:
            return original(self, offset, data, new_epoch, now_ms)
        finally:
            self._verdict_probe = before

    return feed


def _claim_too_early(original: Any) -> Any:
    def next_probe(self: Any, now_ms: int, *, verdict: bool = False) -> Any:
        found = original(self, now_ms)
        self._verdict_probe = found[0]
        return found

    return next_probe


def _no_byte_limit(original: Any) -> Any:
    def form(self: Any) -> Any:
        before, self.settings = self.settings, replace(self.settings, envelope_bytes=2**40)
        try:
            return original(self)
        finally:
            self.settings = before

    return form


def _send_on(original: Any) -> Any:
    async def send(self: Any, *args: Any) -> None:
        self._is_lost = False
        await original(self, *args)

    return send


def _taken_is_sent(original: Any) -> Any:
    def closed(self: Any) -> None:
        for flight in self._flights:
            flight.maybe = flight.maybe or flight.step is not Step.READY
        original(self)

    return closed


def _stay_silent(original: Any) -> Any:
    return lambda self, *args: None


def _swallow(original: Any) -> Any:
    def failed(self: Any, why: str) -> None:
        self.why = why

    return failed


_TAIL, _QUEUE, _LOG, _INDEX = "test_tail", "test_publishing", "test_partition_log", "test_index"

MUTANTS = [
    Mutant("rule 1", "judge without the probe's offset", PartitionLog, "judge", _judge_by_identity_only),
    Mutant(
        "rule 1",
        "ignore the identity of the stream",
        PartitionLog,
        "judge",
        _forget_identity,
        f"{_LOG}:test_changed_identity_starts_new_epoch",
    ),
    Mutant(
        "rule 1",
        "resume at any record",
        StreamTail,
        "_resumed",
        _resume_anywhere,
        f"{_TAIL}:test_resume_at_another_envelope_is_a_move",
    ),
    Mutant("rule 1", "ignore impossible offsets", PartitionLog, "appended", _always(True)),
    Mutant(
        "rule 1",
        "wait for one probe only",
        PartitionLog,
        "feed",
        _exact_probe,
        f"{_LOG}:test_later_probe_replaces_a_lost_verdict_probe",
    ),
    Mutant(
        "rule 1",
        "take every missing start for trimmed",
        PartitionLog,
        "missing",
        _always_trimmed,
        f"{_LOG}:test_missing_place_outside_of_a_resume_decides_nothing",
    ),
    Mutant(
        "rule 2",
        "adopt every genesis",
        Epochs,
        "_started",
        _every_genesis,
        "test_epochs:test_lowest_offset_wins_between_two_proposals",
    ),
    Mutant("rule 2", "adopt no other genesis", Epochs, "_started", _never_a_new_genesis),
    Mutant(
        "rule 2",
        "claim an epoch before the verdict",
        PartitionLog,
        "next_probe",
        _claim_too_early,
        f"{_LOG}:test_verdict_probe_claims_no_epoch",
    ),
    Mutant(
        "rule 2",
        "ignore strange claims",
        Epochs,
        "is_strange",
        _always(False),
        "test_epochs:test_unknown_claim_is_strange",
    ),
    Mutant("rule 3", "mix up receipts", PublishQueue, "stored", _wrong_receipts),
    Mutant(
        "rule 3",
        "give receipts before the verdict",
        PartitionLog,
        "feed",
        _early_receipts,
        f"{_LOG}:test_receipts_wait_for_the_epoch",
    ),
    Mutant(
        "rule 4",
        "ignore the previous record",
        Dedupe,
        "misses",
        _always(False),
        f"{_TAIL}:test_missing_previous_is_gap",
    ),
    Mutant(
        "rule 5",
        "start with many in flight",
        PublishQueue,
        "opened",
        _wide_window,
        f"{_QUEUE}:test_first_append_of_connection_is_alone",
    ),
    Mutant("rule 6", "ignore jumps", StreamTail, "_is_next", _always(True)),
    Mutant("part 1", "stop at unreadable envelopes", StreamTail, "feed", _raise_unreadable),
    Mutant(
        "part 1",
        "skip unreadable envelopes silently",
        StreamTail,
        "feed",
        _skip_unreadable,
        f"{_TAIL}:test_unreadable_envelope_is_gap",
    ),
    Mutant(
        "part 1",
        "make envelopes of any size",
        PublishQueue,
        "_form",
        _no_byte_limit,
        f"{_QUEUE}:test_envelope_is_limited_in_bytes",
    ),
    Mutant("part 2", "resend with new numbers", PublishQueue, "closed", _renumber),
    Mutant("part 2", "forget that it was sent", PublishQueue, "closed", _stay_ready),
    Mutant("part 2", "report unknown as unsent", PublishQueue, "_failure", _always(Failure.UNSENT)),
    Mutant("part 2", "report unsent as unknown", PublishQueue, "_failure", _always(Failure.UNKNOWN)),
    Mutant(
        "part 2",
        "count a taken envelope as sent",
        PublishQueue,
        "closed",
        _taken_is_sent,
        f"{_QUEUE}:test_envelope_that_never_reached_the_wire_is_unsent",
    ),
    Mutant(
        "part 2",
        "send after a lost append",
        Appender,
        "_send",
        _send_on,
        "io.test_appender:test_nothing_is_sent_after_a_lost_append",
    ),
    Mutant("part 2", "send what has expired", PublishQueue, "expire", _expire_reports_only),
    Mutant("part 2", "send the newest first", PublishQueue, "_form", _last_in_first_out),
    Mutant(
        "part 2",
        "resend after a fresh start",
        PublishQueue,
        "opened",
        _send_stale,
        f"{_QUEUE}:test_fresh_start_gives_up_uncertain_flights",
    ),
    Mutant(
        "part 2", "queue without a bound", PublishQueue, "add", _unbounded, f"{_QUEUE}:test_full_queue_rejects_publish"
    ),
    Mutant("part 3", "resume after the last record", StreamTail, "resume", _resume_after),
    Mutant("part 3", "never give up a connection", Watchdog, "check", _no_dead),
    Mutant("part 3", "never probe", Watchdog, "check", _no_probe),
    Mutant("part 4", "trust a stream that was set back", PartitionLog, "_note", _trust),
    Mutant("part 4", "report the baseline without a gap", PartitionLog, "_baseline", _forget_baseline),
    Mutant("part 4", "name a new epoch trimmed", PartitionLog, "_baseline", _trim_reason),
    Mutant("part 5", "accept repeats of a publisher", Dedupe, "repeated", _repeated_by_connection),
    Mutant("part 5", "accept repeats of a key", Dedupe, "find_key", _always(None)),
    Mutant(
        "part 5",
        "stamp a resend again",
        PublishQueue,
        "next_flight",
        _new_stamp,
        f"{_QUEUE}:test_resend_keeps_numbers_and_time",
    ),
    Mutant("part 5", "start without the past", joining, "look_back", _no_window_at_start),
    Mutant(
        "part 6",
        "read without the past",
        Reader,
        "_start",
        _no_read_back,
        "io.test_reader:test_read_knows_originals_before_its_start",
    ),
    Mutant(
        "part 6",
        "return a part",
        Picker,
        "result",
        _partial_reads,
        "test_reading:test_missing_record_is_no_partial_answer",
    ),
    Mutant("part 6", "lose the last record of a read", Selection, "result", _lose_last),
    Mutant(
        "part 6",
        "ignore the limit of a read",
        Selection,
        "result",
        _no_limit,
        f"{_INDEX}:test_read_over_limit_is_too_many",
    ),
    Mutant("part 6", "ignore size and TTL", index, "last_lost", _keep_all, f"{_INDEX}:test_history_size_and_ttl_apply"),
    Mutant(
        "part 6",
        "answer positions after the end",
        StreamTail,
        "is_beyond",
        _ahead_is_empty,
        f"{_TAIL}:test_place_after_end_is_beyond",
    ),
    Mutant(
        "part 7",
        "report no lost connection",
        Reports,
        "failed",
        _swallow,
        "io.test_node:test_states_follow_the_connection",
    ),
    Mutant(
        "part 7",
        "report no blocked broker",
        Reports,
        "blocked",
        _stay_silent,
        "io.test_node:test_blocked_node_reports_when_it_is_live_again",
    ),
]
