"""Mutants of envelopes, of the tail and of its gaps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulation.mutants.mutant import Mutant, always

from dws_core._log.stream.dedupe import Dedupe
from dws_core._log.stream.envelope import readable
from dws_core._log.stream.publishing import PublishQueue
from dws_core._log.stream.tail import StreamTail
from dws_core._log.watchdog import Watchdog

_TAIL = "test_tail"
_QUEUE = "test_publishing"


def _raise_unreadable(original: Any) -> Any:
    def feed(self: Any, offset: int, data: bytes) -> Any:
        if readable(data) is None:
            raise ValueError("no envelope")
        return original(self, offset, data)

    return feed


def _skip_unreadable(original: Any) -> Any:
    def feed(self: Any, offset: int, data: bytes) -> Any:
        return original(self, offset, data) if readable(data) else []

    return feed


def _no_byte_limit(original: Any) -> Any:
    def form(self: Any) -> Any:
        before, self.settings = self.settings, replace(self.settings, envelope_bytes=2**40)
        try:
            return original(self)
        finally:
            self.settings = before

    return form


def _resume_after(original: Any) -> Any:
    def resume(self: Any) -> int:
        return self.offset + 1

    return resume


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


MUTANTS = [
    Mutant(
        "rule 4",
        "ignore the previous record",
        Dedupe,
        "misses",
        always(False),
        f"{_TAIL}:test_missing_previous_is_gap",
    ),
    Mutant("rule 6", "ignore jumps", StreamTail, "_is_next", always(True)),
    Mutant("part 3", "resume after the last record", StreamTail, "resume", _resume_after),
    Mutant("part 3", "never give up a connection", Watchdog, "check", _no_dead),
    Mutant("part 3", "never probe", Watchdog, "check", _no_probe),
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
]
