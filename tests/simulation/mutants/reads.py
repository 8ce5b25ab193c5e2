"""Mutants of reads of the past, and of the states of a node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulation.mutants.mutant import Mutant

from dws_core._log.stream import index
from dws_core._log.stream.index import Selection
from dws_core._log.stream.io.reader import Reader
from dws_core._log.stream.io.reports import Reports
from dws_core._log.stream.reading import Picker
from dws_core._log.stream.tail import INDEX_BITS, StreamTail

_TAIL = "test_tail"
_INDEX = "test_index"


def _no_read_back(original: Any) -> Any:
    async def start(self: Any, place: int, end: int) -> Any:
        return place >> INDEX_BITS, self._tail.claim

    return start


def _partial_reads(original: Any) -> Any:
    def result(self: Any) -> Any:
        self._left.clear()
        return original(self)

    return result


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


def _keep_all(original: Any) -> Any:
    return lambda newest_first, until, now_ms: 0


def _ahead_is_empty(original: Any) -> Any:
    return lambda self, place: False


def _swallow(original: Any) -> Any:
    def failed(self: Any, why: str) -> None:
        self.why = why

    return failed


def _stay_silent(original: Any) -> Any:
    return lambda self, *args: None


MUTANTS = [
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
