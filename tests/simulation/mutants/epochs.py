"""Mutants of the verdict after a reconnect, and of epochs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulation.mutants.mutant import Mutant, always

from dws_core._log.stream.envelope import Kind, readable
from dws_core._log.stream.epochs import Claim, Epochs
from dws_core._log.stream.partition_log import PartitionLog
from dws_core._log.stream.tail import Moved, StreamTail
from dws_core.plugin import GapReason

_TAIL = "test_tail"
_LOG = "test_partition_log"


def _judge_by_identity_only(original: Any) -> Any:
    def judge(self: Any, probe_offset: int, bounds: Any) -> Any:
        return original(self, 2**60, bounds)

    return judge


def _forget_identity(original: Any) -> Any:
    return lambda self, probe_offset, bounds: original(self, probe_offset, bounds and replace(bounds, identity=None))


def _resume_anywhere(original: Any) -> Any:
    def resumed(self: Any, offset: int, data: bytes) -> Any:
        self.is_resuming = False
        return []

    return resumed


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


def _always_trimmed(original: Any) -> Any:
    return lambda self: self._note(Moved(GapReason.TRIMMED))


def _every_genesis(original: Any) -> Any:
    return lambda self, offset, envelope: Claim(envelope.epoch, offset)


def _never_a_new_genesis(original: Any) -> Any:
    return lambda self, offset, envelope: original(self, offset, envelope) if self.current is None else None


def _claim_too_early(original: Any) -> Any:
    def next_probe(self: Any, now_ms: int, *, verdict: bool = False) -> Any:
        found = original(self, now_ms)
        self._verdict_probe = found[0]
        return found

    return next_probe


def _trust(original: Any) -> Any:
    def note(self: Any, moved: Moved) -> None:
        original(self, replace(moved, suspect=False))

    return note


def _forget_baseline(original: Any) -> Any:
    def baseline(self: Any, tail: Any) -> Any:
        original(self, tail)
        return []

    return baseline


def _trim_reason(original: Any) -> Any:
    return lambda self, tail: [replace(event, reason=GapReason.TRIMMED) for event in original(self, tail)]


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
    Mutant("rule 1", "ignore impossible offsets", PartitionLog, "appended", always(True)),
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
        always(False),
        "test_epochs:test_unknown_claim_is_strange",
    ),
    Mutant("part 4", "trust a stream that was set back", PartitionLog, "_note", _trust),
    Mutant("part 4", "report the baseline without a gap", PartitionLog, "_baseline", _forget_baseline),
    Mutant("part 4", "name a new epoch trimmed", PartitionLog, "_baseline", _trim_reason),
]
