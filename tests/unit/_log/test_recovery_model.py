"""Clients that move between nodes under all kinds of faults: each receives every message once and in order, or a gap.

The tests must also detect each rule that is broken on purpose. The model is in `roaming`, the oracle in
`model_world`.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import pytest
from hypothesis import given, settings
from unit._log.model_world import Case, search
from unit._log.roaming import CASES, Rules, play

from dws_core._log.records import GapReason, Head, ReadResult, ReadSpan, Record
from dws_core._log.recovery import Recovery, watermarks


@settings(max_examples=1_500, deadline=None)
@given(CASES)
def test_roaming_client_receives_each_record_once_or_gap(case: Case) -> None:
    """The records arrive in order."""
    play(Rules(), case)


class NoLastCheck(Recovery):
    def on_record(self, partition: int, epoch: str, record: Record) -> None:
        self._floor[partition] = -1
        super().on_record(partition, epoch, record)


class RoutedAfterHistory(Recovery):
    def on_record(self, partition: int, epoch: str, record: Record) -> None:
        if not self.is_waiting:
            super().on_record(partition, epoch, record)


class GapAnsweredAsEmpty(Recovery):
    def found(self, span: ReadSpan, result: ReadResult) -> None:
        super().found(span, ReadResult(records=result.records))


class AnswersWithWatermark(Recovery):
    def _go_on(self) -> None:
        self._start = watermarks(self._logs, self._start)
        super()._go_on()


class KeepsFloorOverGap(Recovery):
    def on_discontinuity(self, reason: GapReason, head: Head) -> None:
        floor = self._floor.get(head.partition, 0)
        super().on_discontinuity(reason, head)
        if head.partition in self._floor:
            self._floor[head.partition] = floor


class DropsWhatItCannotHold(Recovery):
    def _catch_up(self) -> None:
        self._overflowed = False


class Mutants:
    """Sets of rules with one broken rule each. The design lists the first five."""

    ALL: ClassVar[dict[str, Rules]] = {
        "no catch-up": Rules(catches_up=False),
        "history not bounded by the watermark": Rules(bounds_history=False),
        "no check against the last": Rules(recovery=NoLastCheck),
        "routing added after history": Rules(recovery=RoutedAfterHistory),
        "pos is the broker's head": Rules(pos_is_watermark=False),
        "a gap answered as nothing missed": Rules(recovery=GapAnsweredAsEmpty),
        "the answer's cursor is the watermark": Rules(recovery=AnswersWithWatermark),
        "the last is kept over a gap": Rules(recovery=KeepsFloorOverGap),
        "what cannot be held is dropped": Rules(recovery=DropsWhatItCannotHold),
    }


@pytest.mark.parametrize("name", Mutants.ALL)
def test_model_detects_broken_rule(name: str) -> None:
    with pytest.raises(AssertionError):
        search(CASES, partial(play, Mutants.ALL[name]))
