"""Deadlines agree with a plain dictionary, and use memory for current keys only."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from dws_core._limits.deadlines import Deadlines

_keys = st.integers(0, 4)
_times = st.floats(0, 10)
_steps = st.one_of(
    st.tuples(st.just("set"), _keys, _times),
    st.tuples(st.just("discard"), _keys, _times),
    st.tuples(st.just("pop"), _keys, _times),
)


@given(st.lists(_steps, max_size=60))
def test_deadlines_agree_with_dictionary(steps: list[tuple[str, int, float]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    model: dict[int, float] = {}
    for step, key, at in steps:
        if step == "set":
            deadlines.set(key, at)
            model[key] = at
        elif step == "discard":
            deadlines.discard(key)
            model.pop(key, None)
        else:
            due = {k for k, deadline in model.items() if deadline == min(model.values()) and deadline <= at}
            found = deadlines.pop(at)
            assert found in due if due else found is None
            model.pop(-1 if found is None else found, None)
        assert len(deadlines) == len(model)
        assert deadlines.first == min(model.values(), default=None)


def test_equal_deadlines_are_due_in_order() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for key in "abc":
        deadlines.set(key, 1.0)
    assert deadlines.pop(0.9) is None
    assert [deadlines.pop(1.0) for _ in range(4)] == ["a", "b", "c", None]


def test_churn_needs_no_memory() -> None:
    """Connections that come and go with long-lived tokens leave nothing."""
    deadlines: Deadlines[object] = Deadlines()
    kept = object()
    deadlines.set(kept, 5.0)
    for number in range(10_000):
        deadlines.set(key := object(), 1e6 + number)
        deadlines.set(key, 2e6 + number)
        deadlines.discard(key)
    assert len(deadlines._heap) < 200
    assert sys.getsizeof(deadlines._heap) < 10_000
    assert deadlines.pop(5.0) is kept
    assert deadlines.first is None
