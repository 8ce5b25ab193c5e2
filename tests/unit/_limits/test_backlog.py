"""Frames queued for a slow connection, and the policies that drop them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dws_core._limits.backlog import SLOW_CONSUMER, Backlog, SlowConsumer
from dws_core._wire.frames import Frame


def _frame(text: str, topic: str | None = "t") -> Frame:
    return Frame(text.encode(), binary=False, topic=topic)


def _all(backlog: Backlog) -> list[str]:
    return [backlog.take().text for _ in range(len(backlog))]


def test_frames_are_taken_in_order() -> None:
    backlog = Backlog(None, "close")
    assert [backlog.put(_frame(text)) for text in "abc"] == [0, 0, 0]
    assert (len(backlog), backlog.size_bytes) == (3, 3)
    assert _all(backlog) == ["a", "b", "c"]
    assert backlog.size_bytes == 0
    with pytest.raises(KeyError):
        backlog.take()


@pytest.mark.parametrize("policy", SLOW_CONSUMER)
def test_single_frame_may_exceed_limit(policy: SlowConsumer) -> None:
    assert Backlog(3, policy).put(_frame("12345")) == 0


def test_close_policy_drops_nothing() -> None:
    backlog = Backlog(3, "close")
    assert [backlog.put(_frame(text)) for text in ("12", "3", "4")] == [0, 0, None]


def test_bytes_in_server_buffer_count() -> None:
    assert Backlog(3, "close").put(_frame("12"), sent_bytes=2) is None
    assert Backlog(4, "close").put(_frame("12"), sent_bytes=2) == 0


def test_drop_oldest_drops_messages_but_not_replies() -> None:
    backlog = Backlog(3, "drop-oldest")
    for text, topic in (("a", "t"), ("!", None), ("b", "t")):
        assert backlog.put(_frame(text, topic)) == 0
    assert backlog.put(_frame("cd")) == 2
    assert _all(backlog) == ["!", "cd"]


def test_drop_newest_keeps_queue_and_makes_room_for_replies() -> None:
    backlog = Backlog(3, "drop-newest")
    assert [backlog.put(_frame(text)) for text in "abc"] == [0, 0, 0]
    assert backlog.put(_frame("d")) == 1
    assert backlog.put(_frame("!", None)) == 1
    assert _all(backlog) == ["a", "b", "!"]


@pytest.mark.parametrize("policy", SLOW_CONSUMER)
def test_replies_over_limit_overflow(policy: SlowConsumer) -> None:
    backlog = Backlog(2, policy)
    assert [backlog.put(_frame(text, None)) for text in "abc"] == [0, 0, None]


def test_keep_latest_keeps_newest_message_of_topic() -> None:
    """The newest message takes the last place in the queue."""
    backlog = Backlog(10, "keep-latest")
    for text, topic, dropped in (("a1", "a", 0), ("b1", "b", 0), ("!", None, 0), ("a2", "a", 1), ("?", None, 0)):
        assert backlog.put(_frame(text, topic)) == dropped
    assert _all(backlog) == ["b1", "!", "a2", "?"]


def test_keep_latest_overflows_over_limit() -> None:
    backlog = Backlog(3, "keep-latest")
    assert backlog.put(_frame("ab", "a")) == 0
    assert backlog.put(_frame("cd", "b")) is None


@settings(max_examples=300)
@given(
    policy=st.sampled_from(SLOW_CONSUMER),
    limit=st.one_of(st.none(), st.integers(1, 30)),
    puts=st.lists(st.tuples(st.integers(0, 12), st.sampled_from([None, "a", "b"]), st.integers(0, 5), st.booleans())),
)
def test_every_drop_is_counted_and_limit_holds(
    policy: SlowConsumer, limit: int | None, puts: list[tuple[int, str | None, int, bool]]
) -> None:
    backlog = Backlog(limit, policy)
    kept: list[Frame] = []
    for size, topic, beside, takes in puts:
        frame = Frame(b"x" * size, binary=True, topic=topic)
        dropped = backlog.put(frame, sent_bytes=beside)
        if dropped is None:
            assert limit is not None
            return
        kept = [*kept, frame]
        assert len(kept) - dropped == len(backlog)
        if dropped:
            waiting = _peek(backlog)
            gone = [one for one in kept if one not in waiting]
            assert all(one.topic is not None for one in gone)
            kept = waiting
        assert limit is None or backlog.size_bytes + beside <= limit or len(backlog) <= 1
        assert backlog.size_bytes == sum(map(len, kept))
        if takes and kept:
            assert backlog.take() is kept.pop(0)
    assert _peek(backlog) == kept


def _peek(backlog: Backlog) -> list[Frame]:
    return list(backlog._frames.values())
