from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.seqfilter import SeqFilter


def test_record_is_accepted_once() -> None:
    seen = SeqFilter()
    assert [seen.accept(b"a", seq) for seq in (1, 2, 2, 1, 3)] == [True, True, False, False, True]


def test_publishers_are_counted_separately() -> None:
    seen = SeqFilter()
    assert seen.accept(b"a", 5)
    assert seen.accept(b"b", 1)


def test_least_recent_publisher_is_evicted_first() -> None:
    seen = SeqFilter(publishers=2)
    for publisher, seq in ((b"a", 1), (b"b", 1), (b"a", 2), (b"c", 1)):
        assert seen.accept(publisher, seq)
    assert not seen.accept(b"a", 2)
    assert not seen.accept(b"c", 1)
    assert seen.accept(b"b", 1), "b was forgotten"


@given(st.integers(1, 20), st.data())
def test_interleaved_connections_keep_each_record_once(count: int, data: st.DataObject) -> None:
    """The old connection's tail and the resent records arrive in any mixture, each in its own order."""
    arrived = data.draw(st.integers(0, count))
    resent_from = data.draw(st.integers(0, arrived))
    old, new = list(range(1, arrived + 1)), list(range(resent_from + 1, count + 1))
    mixed: list[int] = old[:resent_from]
    del old[:resent_from]
    while old or new:
        mixed.append((old if old and (not new or data.draw(st.booleans())) else new).pop(0))
    seen = SeqFilter()
    assert [seq for seq in mixed if seen.accept(b"a", seq)] == list(range(1, count + 1))
