"""Joint reads: many reads combined into few, each with the answer of a separate read."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.joint_read import JointRead
from dws_core._log.records import GapReason, ReadResult, ReadSpan, Record, WantedTopics


def rec(offset: int, topic: str = "a", size: int = 0) -> Record:
    return Record(offset=offset, topic=topic, payload=b"x" * size, ts_ms=0, publisher=b"p", seq=offset)


def span(
    since: int, until: int = 10, topics: WantedTopics = frozenset({"a"}), *, epoch: str = "e", limit: int = 99
) -> ReadSpan:
    return ReadSpan(partition=3, epoch=epoch, since=since, until=until, topics=topics, limit=limit, max_bytes=1_000)


def read_of(log: Iterable[Record], wanted: ReadSpan, *, trimmed: int = 0) -> ReadResult:
    """Return the answer of a broker that lost the records up to an offset."""
    if wanted.since < trimmed:
        return ReadResult(gap=GapReason.TRIMMED)
    match = wanted.topics if callable(wanted.topics) else wanted.topics.__contains__
    found = tuple(r for r in log if wanted.since < (r.offset or 0) <= wanted.until and match(r.topic))
    if len(found) > wanted.limit or sum(len(r.payload) for r in found) > wanted.max_bytes:
        return ReadResult(gap=GapReason.TOO_MANY)
    return ReadResult(records=found)


def run(backfill: JointRead, log: Iterable[Record], *, trimmed: int = 0) -> tuple[dict[ReadSpan, ReadResult], int]:
    """Do all reads, and return the answer for each span and the number of reads."""
    answers: dict[ReadSpan, ReadResult] = {}
    reads = 0
    while (wanted := backfill.next_read()) is not None:
        reads += 1
        for one, answer in backfill.answered(read_of(log, wanted, trimmed=trimmed)):
            assert one not in answers
            answers[one] = answer
    return answers, reads


def test_empty_backfill_has_no_read() -> None:
    assert JointRead().next_read() is None


def test_single_read_is_unchanged() -> None:
    backfill, wish = JointRead(), span(1)
    backfill.add(wish)
    assert backfill.next_read() is wish
    assert list(backfill.answered(ReadResult(records=(rec(2),)))) == [(wish, ReadResult(records=(rec(2),)))]
    assert backfill.next_read() is None


def test_reads_added_during_read_are_joined() -> None:
    backfill = JointRead()
    wishes = [span(5, 8), span(2, 8, frozenset({"b"})), span(3, 9, limit=7)]
    backfill.add(span(0))
    backfill.next_read()
    for wish in wishes:
        backfill.add(wish)
    assert backfill.next_read() is None, "one is on its way"
    backfill.answered(ReadResult())
    joint = backfill.next_read()
    assert joint is not None
    assert (joint.partition, joint.epoch, joint.since, joint.until) == (3, "e", 2, 9)
    assert (joint.topics, joint.limit, joint.max_bytes) == ({"a", "b"}, 99 + 99 + 7, 3_000)
    log = [rec(3), rec(4, "b"), rec(6), rec(9)]
    assert list(backfill.answered(read_of(log, joint))) == [
        (wishes[0], ReadResult(records=(rec(6),))),
        (wishes[1], ReadResult(records=(rec(4, "b"),))),
        (wishes[2], ReadResult(records=(rec(6), rec(9)))),
    ]


def test_withdrawn_read_is_not_joined() -> None:
    backfill = JointRead()
    wishes = [span(0), span(1), span(2)]
    for wish in wishes:
        backfill.add(wish)
    backfill.withdraw(wishes[0])
    backfill.withdraw(wishes[0])
    joint = backfill.next_read()
    assert joint is not None
    assert joint.since == 1
    assert backfill.failed() == wishes[1:]
    assert backfill.next_read() is None


def test_joint_read_has_own_limits() -> None:
    backfill = JointRead(max_records=150, max_bytes=1_500)
    for _ in range(3):
        backfill.add(span(0))
    joint = backfill.next_read()
    assert joint is not None
    assert (joint.limit, joint.max_bytes) == (150, 1_500)


def test_wildcard_makes_joint_read_wildcard() -> None:
    backfill = JointRead()

    def begins_with_b(topic: str) -> bool:
        return topic.startswith("b")

    for topics in (begins_with_b, frozenset({"a"}), begins_with_b):
        backfill.add(span(0, topics=topics))
    joint = backfill.next_read()
    assert joint is not None
    assert callable(joint.topics)
    assert [joint.topics(topic) for topic in ("a", "b/1", "c")] == [True, True, False]


def test_epochs_are_read_separately() -> None:
    backfill = JointRead()
    wishes = [span(0), span(0, epoch="f"), span(1)]
    for wish in wishes:
        backfill.add(wish)
    assert (joint := backfill.next_read()) is not None
    assert joint.epoch == "e"
    assert [one for one, _ in backfill.answered(ReadResult(gap=GapReason.EPOCH))] == [wishes[0], wishes[2]]
    assert backfill.next_read() is wishes[1]


@pytest.mark.parametrize("reason", [GapReason.EPOCH, GapReason.AHEAD, GapReason.UNSUPPORTED])
def test_log_gap_applies_to_all_reads(reason: GapReason) -> None:
    backfill = JointRead()
    wishes = [span(0), span(1)]
    for wish in wishes:
        backfill.add(wish)
    backfill.next_read()
    assert list(backfill.answered(ReadResult(gap=reason))) == [(wish, ReadResult(gap=reason)) for wish in wishes]


def test_trimmed_read_does_not_affect_others() -> None:
    backfill = JointRead()
    wishes = [span(since) for since in (4, 0, 5, 6, 7, 8, 9, 4)]
    for wish in wishes:
        backfill.add(wish)
    answers, reads = run(backfill, [rec(n) for n in range(1, 11)], trimmed=3)
    assert answers[wishes[1]].gap is GapReason.TRIMMED
    assert all(answers[wish].gap is None for wish in wishes if wish is not wishes[1])
    assert reads <= 7, "halving, not one by one"


def test_oversized_read_does_not_affect_others() -> None:
    backfill = JointRead()
    wishes = [span(0, limit=3), span(8, limit=3), span(9, limit=3)]
    for wish in wishes:
        backfill.add(wish)
    answers, _ = run(backfill, [rec(n) for n in range(1, 11)])
    assert [answers[wish].gap for wish in wishes] == [GapReason.TOO_MANY, None, None]


def test_byte_limit_applies_to_each_read() -> None:
    backfill = JointRead()
    wishes = [span(0), span(8)]
    for wish in wishes:
        backfill.add(wish)
    answers, reads = run(backfill, [rec(n, size=150) for n in range(1, 11)])
    assert reads == 1
    assert [answers[wish].gap for wish in wishes] == [GapReason.TOO_MANY, None]


def test_failed_read_fails_its_requests() -> None:
    backfill = JointRead()
    wishes = [span(0), span(1)]
    for wish in wishes:
        backfill.add(wish)
    backfill.next_read()
    assert backfill.failed() == wishes
    assert backfill.next_read() is None
    with pytest.raises(RuntimeError, match="no read"):
        backfill.failed()


def match_a(topic: str) -> bool:
    return topic == "a"


spans = st.builds(
    span,
    st.integers(0, 20),
    st.integers(20, 24),
    st.sampled_from([frozenset({"a"}), frozenset({"b"}), frozenset({"a", "b"}), match_a]),
    limit=st.integers(1, 12),
)


@given(
    wishes=st.lists(spans, max_size=8),
    topics=st.lists(st.sampled_from("abc"), max_size=24),
    size=st.integers(0, 200),
    trimmed=st.integers(0, 20),
    bounds=st.sampled_from([{}, {"max_records": 4}, {"max_bytes": 300}]),
)
def test_joint_answers_equal_separate_answers(
    wishes: list[ReadSpan], topics: list[str], size: int, trimmed: int, bounds: dict[str, int]
) -> None:
    log = [rec(n, topic, size) for n, topic in enumerate(topics, 1)]
    backfill = JointRead(**bounds)
    for wish in wishes:
        backfill.add(wish)
    answers, _ = run(backfill, log, trimmed=trimmed)
    assert answers == {wish: read_of(log, wish, trimmed=trimmed) for wish in wishes}
