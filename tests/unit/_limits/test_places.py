"""Numbers of connections by key."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dws_core._limits.places import Places


@given(st.integers(1, 3), st.lists(st.tuples(st.booleans(), st.sampled_from("ab")), max_size=40))
def test_places_agree_with_counter(limit: int, steps: list[tuple[bool, str]]) -> None:
    places, taken = Places(limit), Counter[str]()
    for takes, key in steps:
        if takes:
            assert places.take(key) is (taken[key] < limit)
            taken[key] = min(limit, taken[key] + 1)
        elif taken[key]:
            places.give_back(key)
            taken[key] -= 1
        assert len(places) == sum(count > 0 for count in taken.values())


def test_no_limit_counts_nothing() -> None:
    places = Places(None)
    assert all(places.take("a") for _ in range(5))
    assert len(places) == 0
    places.give_back("a")


def test_missing_key_has_no_limit() -> None:
    places = Places(1)
    assert all(places.take(None) for _ in range(5))
    places.give_back(None)
    assert len(places) == 0
