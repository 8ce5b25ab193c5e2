"""The past of one filter, one decision at a time. `test_replay_model` tests it for any order of events."""

from __future__ import annotations

import pytest

from dws_core._log.cache import LogCache
from dws_core._log.records import GapReason, Head, Record, WantedTopics
from dws_core._log.recovery import Due, Recovery
from dws_core._log.replay import Replay
from dws_core._log.tail import Lost
from dws_core._wire.cursor import format_cursor, parse_cursor

A: dict[int, WantedTopics] = {0: frozenset({"a"})}


def rec(offset: int, size: int = 0) -> Record:
    return Record(offset=offset, topic="a", payload=b"x" * size, ts_ms=0, publisher=b"p", seq=offset)


class Node:
    """One partition of a node, with the offsets 1 to 9 in its cache."""

    def __init__(self, *, max_records: int = 99) -> None:
        self.log = LogCache(Head(partition=0, epoch="e", offset=0), max_records=max_records)
        self.log.advance("e", 0, 9, [rec(offset) for offset in range(1, 10)], now=0.0)

    def replay(self, cursor: str, *past: int, size: int = 0) -> Replay:
        records = [Due(0, "e", rec(offset, size)) for offset in past]
        return Replay(Recovery(parse_cursor(cursor), A, {0: self.log}), records)

    def publish(self, replay: Replay, offset: int) -> None:
        self.log.advance("e", self.log.hi, offset, [rec(offset)], now=0.0)
        replay.recovery.on_record(0, "e", rec(offset))


def taken(replay: Replay, *, max_messages: int = 99, max_bytes: int = 10**6) -> list[int | str | None]:
    items = replay.take(max_messages=max_messages, max_bytes=max_bytes)
    return [str(item.reason) if isinstance(item, Lost) else item.record.offset for item in items]


def test_past_is_followed_by_recovery_and_live() -> None:
    node = Node()
    replay = node.replay("0:e:7", 3, 5)
    node.publish(replay, 10)
    assert (format_cursor(replay.answer().cursor), replay.answer().gap) == ("0:e:2", None)
    assert taken(replay, max_messages=4) == [3, 5, 8, 9]
    assert not replay.settled
    assert taken(replay) == [10]
    assert replay.settled


def test_replay_without_past_begins_at_cursor() -> None:
    replay = Node().replay("0:e:7")
    assert format_cursor(replay.answer().cursor) == "0:e:7"
    assert taken(replay) == [8, 9]


def test_gap_drops_past() -> None:
    replay = Node().replay("0:old:7", 3, 5)
    assert replay.answer().gap is GapReason.EPOCH
    assert format_cursor(replay.answer().cursor) == "0:e:9"
    assert replay.settled
    assert taken(replay) == []


def test_past_is_taken_in_steps() -> None:
    replay = Node().replay("0:e:9", 3, 5, 7, size=100)
    replay.answer()
    assert taken(replay, max_messages=1) == [3]
    assert not replay.settled
    assert taken(replay, max_bytes=50) == [5], "the item that reaches the limit is the last one"
    assert taken(replay) == [7]
    assert replay.settled


def test_answer_needs_answer_of_recovery() -> None:
    replay = Node(max_records=0).replay("0:e:5")
    with pytest.raises(RuntimeError, match="no answer yet"):
        replay.answer()
