"""Mutants of publishing, of receipts and of deduplication."""

from __future__ import annotations

from typing import Any

from simulation.mutants.mutant import Mutant, always

from dws_core._log.stream.dedupe import Dedupe
from dws_core._log.stream.io import joining
from dws_core._log.stream.io.appender import Appender
from dws_core._log.stream.partition_log import PartitionLog
from dws_core._log.stream.publishing import Failure, PublishQueue, Step

_QUEUE = "test_publishing"
_LOG = "test_partition_log"


def _wrong_receipts(original: Any) -> Any:
    return lambda self, first, receipts: original(self, first, receipts[::-1])


def _early_receipts(original: Any) -> Any:
    def feed(self: Any, offset: int, data: bytes, new_epoch: Any, now_ms: int) -> Any:
        events = original(self, offset, data, new_epoch, now_ms)
        early, self._early = self._early, []
        return [*early, *events]

    return feed


def _wide_window(original: Any) -> Any:
    def opened(self: Any, *, again: bool) -> Any:
        outcomes = original(self, again=again)
        self._window = self.settings.in_flight
        return outcomes

    return opened


def _renumber(original: Any) -> Any:
    def closed(self: Any) -> None:
        original(self)
        while self._flights:
            self._waiting.extendleft(reversed(self._flights.pop().items))

    return closed


def _stay_ready(original: Any) -> Any:
    def closed(self: Any) -> None:
        for flight in self._flights:
            flight.step = Step.READY
        self._open = False

    return closed


def _taken_is_sent(original: Any) -> Any:
    def closed(self: Any) -> None:
        for flight in self._flights:
            flight.maybe = flight.maybe or flight.step is not Step.READY
        original(self)

    return closed


def _send_on(original: Any) -> Any:
    async def send(self: Any, *args: Any) -> None:
        self._is_lost = False
        await original(self, *args)

    return send


def _expire_reports_only(original: Any) -> Any:
    def expire(self: Any, now: float) -> Any:
        return [outcome for item in self._items() if item.due <= now for outcome in self._report(item, Failure.UNSENT)]

    return expire


def _last_in_first_out(original: Any) -> Any:
    def form(self: Any) -> Any:
        self._waiting.reverse()
        return original(self)

    return form


def _send_stale(original: Any) -> Any:
    return lambda self, *, again: original(self, again=False)


def _unbounded(original: Any) -> Any:
    def add(self: Any, item: Any) -> Any:
        self._bytes, before = 0, self._bytes
        original(self, item)
        self._bytes += before
        return True

    return add


def _repeated_by_connection(original: Any) -> Any:
    def repeated(self: Any, publisher: bytes, first: int, count: int) -> int:
        original(self, publisher, first, count)
        return 0

    return repeated


def _new_stamp(original: Any) -> Any:
    def next_flight(self: Any, now_ms: int) -> Any:
        flight = original(self, now_ms)
        if flight is not None:
            flight.time_ms = now_ms
        return flight

    return next_flight


def _no_window_at_start(original: Any) -> Any:
    async def look_back(scanner: Any, end: int, time_ms: int) -> Any:
        start, claim = await original(scanner, end, time_ms)
        return (end, claim) if claim else (start, claim)

    return look_back


MUTANTS = [
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
        "rule 5",
        "start with many in flight",
        PublishQueue,
        "opened",
        _wide_window,
        f"{_QUEUE}:test_first_append_of_connection_is_alone",
    ),
    Mutant("part 2", "resend with new numbers", PublishQueue, "closed", _renumber),
    Mutant("part 2", "forget that it was sent", PublishQueue, "closed", _stay_ready),
    Mutant("part 2", "report unknown as unsent", PublishQueue, "_failure", always(Failure.UNSENT)),
    Mutant("part 2", "report unsent as unknown", PublishQueue, "_failure", always(Failure.UNKNOWN)),
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
    Mutant("part 5", "accept repeats of a publisher", Dedupe, "repeated", _repeated_by_connection),
    Mutant("part 5", "accept repeats of a key", Dedupe, "find_key", always(None)),
    Mutant(
        "part 5",
        "stamp a resend again",
        PublishQueue,
        "next_flight",
        _new_stamp,
        f"{_QUEUE}:test_resend_keeps_numbers_and_time",
    ),
    Mutant("part 5", "start without the past", joining, "look_back", _no_window_at_start),
]
