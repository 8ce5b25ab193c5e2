"""The rules of recovery, one decision at a time. `test_recovery_model` tests them for any order of events."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from dws_core._log.cache import LogCache
from dws_core._log.partition import partition_of
from dws_core._log.records import GapReason, Head, Layout, Offset, ReadResult, Record, WantedTopics
from dws_core._log.recovery import Due, Recovery, ReplayLimits, obstacle, wanted_topics, watermarks
from dws_core._log.tail import Lost
from dws_core._wire.cursor import format_cursor, parse_cursor

A: WantedTopics = frozenset({"a"})


def rec(offset: Offset | None, topic: str = "a", size: int = 0) -> Record:
    return Record(offset=offset, topic=topic, payload=b"x" * size, ts_ms=0, publisher=b"p", seq=1)


def head(partition: int, offset: Offset, epoch: str = "e") -> Head:
    return Head(partition=partition, epoch=epoch, offset=offset)


class Node:
    """The logs of a node, and its calls to `Recovery` for each event, in the order that `Recovery` requires."""

    def __init__(self, *heads: Offset, cached: bool = True) -> None:
        rooms = {} if cached else {"max_records": 0}
        self.logs = {p: LogCache(head(p, 0), **rooms) for p in range(len(heads))}
        self.recovery: Recovery | None = None
        for partition, offset in enumerate(heads):
            self.publish(partition, *range(1, offset + 1))

    def publish(self, partition: int, *offsets: Offset | None, topic: str = "a", size: int = 0) -> None:
        log = self.logs[partition]
        records = [rec(offset, topic, size) for offset in offsets]
        hi = max([log.hi, *(offset for offset in offsets if offset is not None)])
        log.advance(log.epoch, log.hi, hi, records, now=0.0)
        if self.recovery is not None:
            for record in records:
                self.recovery.on_record(partition, log.epoch, record)

    def lose(self, reason: GapReason, new: Head) -> None:
        self.logs[new.partition].reset(new)
        if self.recovery is not None:
            self.recovery.on_discontinuity(reason, new)

    def attach(
        self, cursor: str, wanted: Mapping[int, WantedTopics] | None = None, *, recovers: bool = True, **limits: int
    ) -> Recovery:
        topics = dict.fromkeys(self.logs, A) if wanted is None else wanted
        bounds = ReplayLimits(**limits)
        self.recovery = Recovery(parse_cursor(cursor), topics, self.logs, recovers=recovers, limits=bounds)
        return self.recovery


def told(recovery: Recovery) -> tuple[str, GapReason | None]:
    assert recovery.answer is not None
    return format_cursor(recovery.answer.cursor), recovery.answer.gap


def taken(recovery: Recovery, *, max_messages: int = 1_000) -> list[str]:
    """Take all available items. A record becomes its position, a gap its new position and its reason."""
    items = recovery.take(max_messages=max_messages, max_bytes=10**9)
    return [
        f"{i.head.partition}:{i.head.epoch}:{i.head.offset} {i.reason}"
        if isinstance(i, Lost)
        else f"{i.partition}:{i.epoch}:{i.record.offset}"
        for i in items
    ]


# -- the topics of each partition


def test_exact_topics_need_only_their_partitions() -> None:
    layout = Layout(channel="c", partitions=8)
    wanted = wanted_topics({"a", "b", "c/d"}, None, layout)
    assert wanted.keys() == {partition_of(topic, layout) for topic in ("a", "b", "c/d")}
    names = [topics for topics in wanted.values() if isinstance(topics, Collection)]
    assert sorted(topic for topics in names for topic in topics) == ["a", "b", "c/d"]


def test_wildcard_needs_every_partition() -> None:
    wanted = wanted_topics(
        {"$all"}, lambda topic: topic == "$all" or topic.startswith("a/"), Layout(channel="c", partitions=3)
    )
    assert list(wanted) == [0, 1, 2]
    match = wanted[1]
    assert callable(match)
    assert [match(topic) for topic in ("$all", "a/b", "b")] == [True, True, False]


def test_connection_without_gap_starts_at_watermarks() -> None:
    assert format_cursor(watermarks(Node(4, 9, 2).logs, [0, 2])) == "0:e:4,2:e:2"


# -- obstacles that are found before any read


@pytest.mark.parametrize(
    ("cursor", "needed", "reason"),
    [
        ("0:e:1,1:e:1", {0, 1}, None),
        ("0:e:1", {0, 1}, None),
        ("", {0}, None),
        ("0:e:1,1:gone:1", {0}, None),
        ("0:gone:1,1:e:1", {0, 1}, GapReason.EPOCH),
        ("0:e:1,2:e:1", {0}, GapReason.LAYOUT),
        ("1:gone:1", {0}, GapReason.LAYOUT),
        ("1:e:1", {0}, None),
    ],
)
def test_obstacle_is_epoch_or_layout_gap(cursor: str, needed: set[int], reason: GapReason | None) -> None:
    assert obstacle(parse_cursor(cursor), needed, Node(5, 5).logs) is reason


def test_broker_without_history_never_recovers() -> None:
    assert told(Node(0).attach("0:e:0", recovers=False)) == ("", GapReason.UNSUPPORTED)


# -- history up to the watermark, live messages after it


def test_recovery_without_missed_records_is_immediate() -> None:
    recovery = Node(5).attach("0:e:5")
    assert told(recovery) == ("0:e:5", None)
    assert recovery.settled
    assert taken(recovery) == []


def test_missed_records_come_from_cache() -> None:
    recovery = Node(5).attach("0:e:2")
    assert told(recovery) == ("0:e:2", None), "the position before the first of them"
    assert not recovery.settled
    assert taken(recovery) == ["0:e:3", "0:e:4", "0:e:5"]
    assert recovery.settled
    assert format_cursor(recovery.position()) == "0:e:5"


def test_live_records_wait_for_replay() -> None:
    node = Node(5)
    recovery = node.attach("0:e:3")
    node.publish(0, 6, None, 7)
    assert taken(recovery, max_messages=3) == ["0:e:4", "0:e:5", "0:e:6"]
    node.publish(0, 8)
    assert not recovery.settled
    assert taken(recovery) == ["0:e:None", "0:e:7", "0:e:8"]
    assert recovery.settled


def test_unnamed_partition_starts_at_watermark() -> None:
    recovery = Node(5, 8).attach("0:e:5")
    assert told(recovery) == ("0:e:5,1:e:8", None)
    assert recovery.settled


def test_unneeded_cursor_entry_is_ignored() -> None:
    recovery = Node(5, 8).attach("0:e:4,1:e:1", {0: A})
    assert list(recovery.partitions) == [0]
    assert told(recovery) == ("0:e:4", None)
    assert taken(recovery) == ["0:e:5"]


def test_partitions_are_replayed_in_sequence() -> None:
    """This also holds if the read of a later partition ends first."""
    node = Node(2, 2, cached=False)
    recovery = node.attach("0:e:1,1:e:1")
    assert recovery.answer is None
    first, second = recovery.to_read()
    assert recovery.to_read() == [], "each is told once"
    assert (first.partition, first.epoch, first.since, first.until, first.topics) == (0, "e", 1, 2, A)
    recovery.found(second, ReadResult(records=(rec(2),)))
    assert recovery.is_waiting
    assert taken(recovery) == []
    node.publish(1, 3)
    recovery.found(first, ReadResult(records=(rec(2),)))
    assert told(recovery) == ("0:e:1,1:e:1", None)
    assert taken(recovery) == ["0:e:2", "1:e:2", "1:e:3"]


def test_take_is_limited_by_bytes() -> None:
    node = Node(0)
    node.publish(0, 1, 2, 3, size=1_000)
    recovery = node.attach("0:e:0")
    assert len(recovery.take(max_messages=9, max_bytes=1_001)) == 1
    assert len(recovery.take(max_messages=9, max_bytes=1_300)) == 2


# -- one gap for all partitions


def test_gap_in_one_partition_applies_to_all() -> None:
    node = Node(4, 4, cached=False)
    recovery = node.attach("0:e:1,1:e:1")
    first, second = recovery.to_read()
    recovery.found(first, ReadResult(records=(rec(2),)))
    node.publish(0, 5)
    recovery.found(second, ReadResult(gap=GapReason.TRIMMED))
    assert told(recovery) == ("0:e:5,1:e:4", GapReason.TRIMMED), "where the node stands when it answers"
    assert taken(recovery) == [], "nothing of the past"
    node.publish(0, 6)
    assert taken(recovery) == ["0:e:6"]


def test_different_epoch_is_gap() -> None:
    recovery = Node(4).attach("0:old:2")
    assert told(recovery) == ("0:e:4", GapReason.EPOCH)
    assert recovery.settled


def test_too_many_messages_or_bytes_are_gap() -> None:
    assert told(Node(4, 4).attach("0:e:1,1:e:1", messages=6)) == ("0:e:1,1:e:1", None)
    assert told(Node(4, 4, 4).attach("0:e:1,1:e:1,2:e:1", messages=5)) == ("0:e:4,1:e:4,2:e:4", GapReason.TOO_MANY)
    node = Node(0)
    node.publish(0, 1, 2, size=600)
    assert told(node.attach("0:e:0", bytes=1_200)) == ("0:e:0", None)
    assert told(node.attach("0:e:0", bytes=1_199)) == ("0:e:2", GapReason.TOO_MANY)
    recovery = Node(4, cached=False).attach("0:e:0", messages=2, bytes=77)
    (span,) = recovery.to_read()
    assert (span.limit, span.max_bytes) == (2, 77), "the broker need not read more"


def test_failed_read_is_gap() -> None:
    """The result is ignored if it arrives later."""
    recovery = Node(4, cached=False).attach("0:e:1")
    (span,) = recovery.to_read()
    recovery.refuse(GapReason.UNREADABLE)
    recovery.refuse(GapReason.EPOCH)
    recovery.found(span, ReadResult(records=(rec(2),)))
    assert told(recovery) == ("0:e:4", GapReason.UNREADABLE)
    assert taken(recovery) == []


def test_discontinuity_before_answer_is_gap() -> None:
    node = Node(4, 4, cached=False)
    recovery = node.attach("0:e:1", {0: A})
    node.lose(GapReason.EPOCH, head(1, 0, "f"))
    assert recovery.answer is None, "not a partition of this connection"
    node.lose(GapReason.EPOCH, head(0, 7, "f"))
    assert told(recovery) == ("0:f:7", GapReason.EPOCH)
    node.publish(0, 8)
    assert taken(recovery) == ["0:f:8"]


# -- a client whose cursor is ahead of this node


def test_cursor_ahead_of_node_waits_without_duplicates() -> None:
    node = Node(5)
    recovery = node.attach("0:e:8")
    assert recovery.to_confirm == {0}
    assert recovery.to_read() == []
    node.publish(0, 6)
    assert recovery.answer is None
    recovery.confirmed(head(0, 9))
    assert told(recovery) == ("0:e:8", None)
    assert not recovery.settled, "the node has not come to where the client is"
    node.publish(0, 7, 8, 9)
    assert taken(recovery) == ["0:e:9"]
    assert recovery.settled


def test_slow_node_does_not_move_cursor_back() -> None:
    recovery = Node(5).attach("0:e:8")
    recovery.confirmed(head(0, 8))
    assert format_cursor(recovery.position()) == "0:e:8"
    assert not recovery.settled


@pytest.mark.parametrize(("found", "reason"), [(head(0, 7), GapReason.AHEAD), (head(0, 100, "f"), GapReason.EPOCH)])
def test_ahead_gap_needs_broker_confirmation(found: Head, reason: GapReason) -> None:
    node = Node(5)
    recovery = node.attach("0:e:8")
    node.publish(0, 6)
    recovery.confirmed(found)
    assert told(recovery) == ("0:e:6", reason)
    recovery.confirmed(found)
    node.publish(0, 7)
    assert taken(recovery) == ["0:e:7"], "from now on at the node's pace"


def test_answer_waits_for_read_and_confirmation() -> None:
    node = Node(5, 5, cached=False)
    recovery = node.attach("0:e:8,1:e:4")
    recovery.confirmed(head(0, 8))
    assert recovery.answer is None
    (span,) = recovery.to_read()
    recovery.found(span, ReadResult(records=(rec(5),)))
    assert told(recovery) == ("0:e:8,1:e:4", None)


# -- a client that reads slowly


def test_records_over_held_bytes_before_answer_are_read_later() -> None:
    node = Node(5, cached=False)
    recovery = node.attach("0:e:4", held_bytes=600)
    (missed,) = recovery.to_read()
    node.publish(0, *range(6, 20))
    recovery.found(missed, ReadResult(records=(rec(5),)))
    assert told(recovery) == ("0:e:4", None)
    assert taken(recovery) == ["0:e:5", "0:e:6", "0:e:7", "0:e:8"]
    (later,) = recovery.to_read()
    assert (later.since, later.until) == (8, 19)


def test_refusal_after_overflow_reads_nothing() -> None:
    node = Node(5, cached=False)
    recovery = node.attach("0:e:4", held_bytes=600)
    node.publish(0, *range(6, 20))
    recovery.refuse(GapReason.EPOCH)
    node.publish(0, 20)
    assert taken(recovery) == ["0:e:20"]
    assert recovery.settled


def test_abandoned_recovery_returns_held_records() -> None:
    node = Node(5, cached=False)
    recovery = node.attach("0:e:1")
    node.publish(0, 6, 7)
    assert [item.record.offset for item in recovery.abandon() if isinstance(item, Due)] == [6, 7]


def test_abandoned_recovery_reports_records_not_held() -> None:
    node = Node(5, cached=False)
    recovery = node.attach("0:e:1", held_bytes=600)
    node.publish(0, *range(6, 20))
    *held, lost = recovery.abandon()
    assert len(held) == 3
    assert lost == Lost(reason=GapReason.TOO_MANY, head=head(0, 19))


def test_records_over_held_bytes_are_read_later() -> None:
    node = Node(2)
    recovery = node.attach("0:e:0", held_bytes=600)
    node.publish(0, *range(3, 20))
    node.publish(0, None)
    assert taken(recovery, max_messages=5) == [f"0:e:{n}" for n in range(1, 6)], "two missed, three held back"
    assert not recovery.settled
    assert taken(recovery) == [f"0:e:{n}" for n in range(6, 20)]
    assert recovery.settled
    node.publish(0, 20)
    assert taken(recovery) == ["0:e:20"]


def test_next_round_reads_uncached_records_from_broker() -> None:
    node = Node(0, 0, cached=False)
    recovery = node.attach("0:e:0,1:e:0", held_bytes=600)
    node.publish(0, *range(1, 10))
    assert taken(recovery) == ["0:e:1", "0:e:2", "0:e:3"]
    (span,) = recovery.to_read()
    assert (span.partition, span.since, span.until) == (0, 3, 9)
    node.publish(0, 10)
    assert taken(recovery) == []
    recovery.found(span, ReadResult(records=(rec(9),)))
    assert taken(recovery) == ["0:e:9", "0:e:10"]


def test_gap_in_next_round_affects_one_partition() -> None:
    node = Node(0, 0, cached=False)
    recovery = node.attach("0:e:0,1:e:0", held_bytes=600)
    node.publish(0, *range(1, 10))
    node.publish(1, 1)
    taken(recovery)
    first, second = recovery.to_read()
    recovery.found(first, ReadResult(gap=GapReason.TRIMMED))
    node.publish(0, 10)
    recovery.found(second, ReadResult(records=(rec(1),)))
    assert taken(recovery) == ["0:e:9 trimmed", "1:e:1", "0:e:10"]
    assert recovery.settled


def test_too_many_in_next_round_affects_one_partition() -> None:
    node = Node(0, 0)
    recovery = node.attach("0:e:0,1:e:0", held_bytes=600, messages=5)
    node.publish(0, *range(1, 12))
    node.publish(1, 1)
    assert taken(recovery) == ["0:e:1", "0:e:2", "0:e:3", "0:e:11 too-many", "1:e:1"]


def test_tail_gap_during_replay_keeps_its_place() -> None:
    node = Node(2)
    recovery = node.attach("0:e:0")
    node.publish(0, 3)
    node.lose(GapReason.TRIMMED, head(0, 90))
    node.publish(0, 91)
    assert taken(recovery) == ["0:e:1", "0:e:2", "0:e:3", "0:e:90 trimmed", "0:e:91"]
    assert recovery.settled


def test_tail_gap_of_slow_reader_is_reported() -> None:
    node = Node(0)
    recovery = node.attach("0:e:0", held_bytes=600)
    node.publish(0, 1, 2, 3, 4)
    node.lose(GapReason.EPOCH, head(0, 1, "f"))
    node.publish(0, 2, 3)
    assert taken(recovery) == ["0:e:1", "0:e:2", "0:e:3", "0:f:1 epoch", "0:f:2", "0:f:3"]
    assert recovery.settled


def test_lower_offsets_of_new_epoch_follow_gap() -> None:
    node = Node(50)
    recovery = node.attach("0:e:50")
    node.lose(GapReason.EPOCH, head(0, 0, "f"))
    node.publish(0, 1)
    assert taken(recovery) == ["0:f:0 epoch", "0:f:1"]
