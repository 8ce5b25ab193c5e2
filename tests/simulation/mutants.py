"""Small changes of the base class. Each breaks one rule, and the simulation or a unit test must find it.

Not run by the suite yet: the unit tests that the table names do not exist yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from dws_core._log.stream import reader, reading, session
from dws_core._log.stream.dedupe import Dedupe
from dws_core._log.stream.epochs import Claim, Epochs
from dws_core._log.stream.index import TopicIndex
from dws_core._log.stream.partition_log import PartitionLog, Phase
from dws_core._log.stream.publishing import Failure, PublishQueue, Step
from dws_core._log.stream.tail import Moved, StreamTail
from dws_core._log.watchdog import Watchdog
from dws_core.plugin import GapReason


@dataclass(frozen=True)
class Mutant:
    """A change.

    Attributes:
        name: What it does.
        rule: The rule that it breaks.
        owner: Class or module that it changes.
        attribute: Name of the function.
        make: Returns the changed function from the original one.
        unit: Name of the unit test that finds it, as `module:function`. If empty, the simulation finds it.
    """

    name: str
    rule: str
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
    def feed(self: Any, offset: int, data: bytes, new_epoch: bytes, now_ms: int) -> Any:
        events = original(self, offset, data, new_epoch, now_ms)
        early, self._early = self._early, []
        return [*early, *events]

    return feed


def _exact_probe(original: Any) -> Any:
    def feed(self: Any, offset: int, data: bytes, new_epoch: bytes, now_ms: int) -> Any:
        number = self._verdict_probe
        wanted = self.phase is not Phase.JOINING or f"{number}".encode()
        envelope = session.readable(data)
        if wanted is not True and envelope is not None and envelope.first != number:
            self._verdict_probe = 2**60
        try:
            return original(self, offset, data, new_epoch, now_ms)
        finally:
            self._verdict_probe = number

    return feed


def _skip_unreadable(original: Any) -> Any:
    def feed(self: Any, offset: int, data: bytes) -> Any:
        return original(self, offset, data) if session.readable(data) else []

    return feed


def _raise_unreadable(original: Any) -> Any:
    def feed(self: Any, offset: int, data: bytes) -> Any:
        if session.readable(data) is None:
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
        self._window = self.limits.in_flight
        return outcomes

    return opened


def _send_stale(original: Any) -> Any:
    return lambda self, *, again: original(self, again=False)


def _unbounded(original: Any) -> Any:
    def add(self: Any, ticket: Any, draft: Any, due: float) -> Any:
        self._bytes, before = 0, self._bytes
        original(self, ticket, draft, due)
        self._bytes += before
        return True

    return add


def _no_window_at_start(original: Any) -> Any:
    async def look_back(wire: Any, partition: int, end: int, time_ms: int) -> Any:
        start, claim = await original(wire, partition, end, time_ms)
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
    async def start(self: Any, span: Any, end: int) -> int:
        return span.since >> 16

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
    return lambda newest_first, until, now_ms: [entry.offset for entry in newest_first if entry.offset <= until]


def _no_sort(original: Any) -> Any:
    def select(self: Any, span: Any, now_ms: int) -> Any:
        found = original(self, span, now_ms)
        return found[:-1] if isinstance(found, list) else found

    return select


def _no_limit(original: Any) -> Any:
    return lambda self, span, now_ms: original(self, replace(span, limit=2**31), now_ms)


def _ahead_is_empty(original: Any) -> Any:
    return lambda self, place: False


_TAIL, _QUEUE, _LOG = "test_tail", "test_publishing", "test_partition_log"

MUTANTS = [
    Mutant("accept repeats of a publisher", "deduplication by sequence", Dedupe, "repeated", _repeated_by_connection),
    Mutant("accept repeats of a key", "deduplication by key", Dedupe, "find_key", _always(None)),
    Mutant("resend with new numbers", "unchanged sequence numbers", PublishQueue, "closed", _renumber),
    Mutant("forget that it was sent", "exact outcomes", PublishQueue, "closed", _stay_ready),
    Mutant("report unknown as unsent", "exact outcomes", PublishQueue, "_failure", _always(Failure.UNSENT)),
    Mutant("send what has expired", "unsent never appears", PublishQueue, "expire", _expire_reports_only),
    Mutant("send the newest first", "first in, first out", PublishQueue, "_form", _last_in_first_out),
    Mutant("mix up receipts", "receipts from the tail", PublishQueue, "stored", _wrong_receipts),
    Mutant("stamp a resend anew", "window of keys", PublishQueue, "next_flight", _new_stamp),
    Mutant(
        "start with many in flight",
        "slow start",
        PublishQueue,
        "opened",
        _wide_window,
        f"{_QUEUE}:test_first_append_of_connection_is_alone",
    ),
    Mutant(
        "resend after a fresh start",
        "resend only what the tail would see",
        PublishQueue,
        "opened",
        _send_stale,
        f"{_QUEUE}:test_fresh_start_gives_up_uncertain_flights",
    ),
    Mutant(
        "queue without a bound",
        "bounded bytes",
        PublishQueue,
        "add",
        _unbounded,
        f"{_QUEUE}:test_full_queue_rejects_publish",
    ),
    Mutant("judge without the probe's offset", "verdict: probe", PartitionLog, "judge", _judge_by_identity_only),
    Mutant(
        "ignore the identity of the stream",
        "verdict: identity",
        PartitionLog,
        "judge",
        _forget_identity,
        f"{_LOG}:test_changed_identity_starts_new_epoch",
    ),
    Mutant("resume at any record", "verdict: last record", StreamTail, "_resumed", _resume_anywhere),
    Mutant("resume after the last record", "inclusive follow", StreamTail, "resume", _resume_after),
    Mutant("trust a stream that was set back", "new epoch after a loss", PartitionLog, "_note", _trust),
    Mutant("report the baseline without a gap", "gap after a fresh start", PartitionLog, "_baseline", _forget_baseline),
    Mutant("name a new epoch trimmed", "reason of a gap", PartitionLog, "_baseline", _trim_reason),
    Mutant("adopt every genesis", "lowest offset wins", Epochs, "_started", _every_genesis),
    Mutant("adopt no other genesis", "a genesis replaces its parent", Epochs, "_started", _never_a_new_genesis),
    Mutant("give receipts before the verdict", "epoch of receipts", PartitionLog, "feed", _early_receipts),
    Mutant("wait for one probe only", "a lost verdict probe", PartitionLog, "feed", _exact_probe),
    Mutant(
        "take every missing start for trimmed", "out of range has two causes", PartitionLog, "missing", _always_trimmed
    ),
    Mutant("ignore impossible offsets", "offsets of appends grow", PartitionLog, "appended", _always(True)),
    Mutant(
        "ignore strange claims",
        "unseen genesis",
        Epochs,
        "is_strange",
        _always(False),
        "test_epochs:test_unknown_claim_is_strange",
    ),
    Mutant("ignore jumps", "silent trim under a reader", StreamTail, "_is_next", _always(True)),
    Mutant(
        "ignore `previous`",
        "confirmed but not stored",
        Dedupe,
        "misses",
        _always(False),
        f"{_TAIL}:test_missing_previous_is_gap",
    ),
    Mutant(
        "skip unreadable envelopes silently",
        "unreadable is a gap",
        StreamTail,
        "feed",
        _skip_unreadable,
        f"{_TAIL}:test_unreadable_envelope_is_gap",
    ),
    Mutant("stop at unreadable envelopes", "unreadable stops no tail", StreamTail, "feed", _raise_unreadable),
    Mutant("start without the past", "a node reads one window back", session, "look_back", _no_window_at_start),
    Mutant(
        "read without the past",
        "a read begins one window before",
        reader.Reader,
        "_start",
        _no_read_back,
        "test_reader:test_read_knows_originals_before_its_start",
    ),
    Mutant(
        "return a part",
        "never partial",
        reading.Picker,
        "result",
        _partial_reads,
        "test_reading:test_missing_record_is_no_partial_answer",
    ),
    Mutant("lose the last record of a read", "complete reads", TopicIndex, "select", _no_sort),
    Mutant(
        "ignore the limit of a read",
        "too-many",
        TopicIndex,
        "select",
        _no_limit,
        "test_index:test_read_over_limit_is_too_many",
    ),
    Mutant(
        "ignore size and TTL",
        "history at read time",
        __import__("dws_core._log.stream.index", fromlist=["x"]),
        "kept",
        _keep_all,
        "test_index:test_history_size_and_ttl_apply",
    ),
    Mutant(
        "answer positions after the end",
        "ahead",
        StreamTail,
        "is_beyond",
        _ahead_is_empty,
        f"{_TAIL}:test_place_after_end_is_beyond",
    ),
    Mutant("never give up a connection", "watchdog", Watchdog, "check", _no_dead),
    Mutant("never probe", "probes when idle", Watchdog, "check", _no_probe),
]
