from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.stream.dedupe import KEY_WINDOW_MS, Dedupe

A, B = b"a" * 8, b"b" * 8


def test_new_records_are_no_repeats() -> None:
    dedupe = Dedupe()
    assert dedupe.repeated(A, 1, 3) == 0
    assert dedupe.repeated(A, 4, 2) == 0


def test_resent_envelope_is_a_repeat() -> None:
    dedupe = Dedupe()
    dedupe.repeated(A, 1, 3)
    assert dedupe.repeated(A, 1, 3) == 3
    assert dedupe.repeated(A, 2, 1) == 1


def test_beginning_of_overlapping_envelope_is_repeated() -> None:
    dedupe = Dedupe()
    dedupe.repeated(A, 1, 3)
    assert dedupe.repeated(A, 2, 4) == 2
    assert dedupe.repeated(A, 6, 1) == 0


def test_publishers_count_on_their_own() -> None:
    dedupe = Dedupe()
    dedupe.repeated(A, 1, 3)
    assert dedupe.repeated(B, 1, 3) == 0


def test_publisher_silent_for_longest_is_forgotten() -> None:
    dedupe = Dedupe(publishers=2)
    dedupe.repeated(A, 1, 1)
    dedupe.repeated(B, 1, 1)
    dedupe.repeated(A, 2, 1)
    dedupe.repeated(b"c" * 8, 1, 1)
    assert dedupe.repeated(A, 1, 2) == 2
    assert dedupe.repeated(B, 1, 1) == 0


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 5))))
def test_each_number_is_accepted_at_most_once(envelopes: list[tuple[int, int]]) -> None:
    dedupe = Dedupe()
    accepted: list[int] = []
    for first, count in envelopes:
        accepted += range(first + dedupe.repeated(A, first, count), first + count)
    assert accepted == sorted(set(accepted))


def test_missing_records_are_missed_once() -> None:
    dedupe = Dedupe()
    assert not dedupe.misses(A, 7), "the publisher is not known yet"
    dedupe.repeated(A, 8, 1)
    assert not dedupe.misses(A, 8)
    assert dedupe.misses(A, 10)
    assert not dedupe.misses(A, 10)


def test_missed_records_that_come_later_are_new() -> None:
    """A reader that did not know the publisher takes them, too, so that all readers agree."""
    dedupe = Dedupe()
    dedupe.repeated(A, 1, 1)
    assert dedupe.misses(A, 3)
    assert dedupe.repeated(A, 2, 2) == 0
    assert dedupe.misses(A, 4)


def test_key_is_found_within_its_window() -> None:
    dedupe = Dedupe()
    dedupe.add_key("t", "k", 1000, 5)
    assert dedupe.find_key("t", "k", 1000 + KEY_WINDOW_MS - 1) == (5,)
    assert dedupe.find_key("t", "k", 1000 + KEY_WINDOW_MS) is None
    assert dedupe.find_key("u", "k", 1000) is None
    assert dedupe.find_key("t", "other", 1000) is None


def test_key_of_ephemeral_record_is_found() -> None:
    dedupe = Dedupe()
    dedupe.add_key("t", "k", 1000, None)
    assert dedupe.find_key("t", "k", 1001) == (None,)


def test_number_of_keys_is_bounded() -> None:
    dedupe = Dedupe(keys=2)
    for number in range(4):
        dedupe.add_key("t", str(number), 1000, number)
    assert [dedupe.find_key("t", str(number), 1000) for number in range(4)] == [None, None, (2,), (3,)]


def test_keys_older_than_two_windows_are_forgotten() -> None:
    """One window would be too short, because the clocks of publishers differ."""
    dedupe = Dedupe()
    dedupe.add_key("t", "old", 1000, 1)
    dedupe.add_key("t", "new", 1000 + 2 * KEY_WINDOW_MS, 2)
    assert dedupe.find_key("t", "old", 1000) == (1,)
    dedupe.add_key("t", "newer", 1001 + 2 * KEY_WINDOW_MS, 3)
    assert dedupe.find_key("t", "old", 1000) is None


def test_key_from_far_future_is_no_original() -> None:
    """The clock of its publisher is wrong, and would suppress the key for years."""
    dedupe = Dedupe()
    future = 10**12
    dedupe.add_key("t", "k", future, 1)
    assert dedupe.find_key("t", "k", 1000) is None
    assert dedupe.find_key("t", "k", future - 3_599_999) == (1,)
    dedupe.add_key("t", "k", 1000, 2)
    assert dedupe.find_key("t", "k", 1001) == (2,)


def test_key_from_far_future_does_not_keep_others() -> None:
    dedupe = Dedupe(keys=3)
    dedupe.add_key("t", "future", 10**12, 1)
    for number in range(10):
        dedupe.add_key("t", str(number), 1000 + number * KEY_WINDOW_MS, number)
        assert dedupe.find_key("t", str(number), 1000 + number * KEY_WINDOW_MS) == (number,)
    assert len(dedupe._keys) == 3
