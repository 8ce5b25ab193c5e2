from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.watchdog import Watchdog


def test_busy_connection_is_never_probed() -> None:
    dog = Watchdog(0.0)
    for tenth in range(1, 50):
        assert dog.check(tenth / 10) == "wait"
        dog.heard(tenth / 10)


def test_silent_connection_is_probed_twice_then_dead() -> None:
    dog = Watchdog(10.0)
    found = []
    while not found or found[-1][1] != "dead":
        assert dog.check(dog.look_at - 0.01) == "wait"
        found.append((dog.look_at, dog.check(dog.look_at)))
    assert found == [(11.0, "probe"), (12.0, "probe"), (13.0, "dead")]


def test_answer_ends_suspicion() -> None:
    dog = Watchdog(0.0)
    assert dog.check(1.0) == "probe"
    dog.heard(2.9)
    assert dog.check(3.0) == "wait"
    assert dog.look_at == 3.9


def test_paused_process_probes_before_giving_up() -> None:
    dog = Watchdog(0.0)
    assert dog.check(100.0) == "probe"
    assert dog.check(101.9) == "probe"
    assert dog.check(102.0) == "dead"


def test_last_check_is_at_deadline() -> None:
    dog = Watchdog(0.0, probe_s=2.0, dead_s=3.0)
    assert dog.check(2.0) == "probe"
    assert dog.look_at == 3.0
    assert dog.check(3.0) == "dead"


@pytest.mark.parametrize(("probe_s", "dead_s"), [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)])
def test_zero_answer_time_is_rejected(probe_s: float, dead_s: float) -> None:
    with pytest.raises(ValueError, match="increase dead_s"):
        Watchdog(0.0, probe_s=probe_s, dead_s=dead_s)


@given(st.lists(st.tuples(st.floats(0.001, 2.0), st.booleans()), max_size=40))
def test_connection_that_answers_probes_is_never_dead(steps: list[tuple[float, bool]]) -> None:
    dog, now, asked = Watchdog(0.0), 0.0, None
    for wait_s, answers in steps:
        if asked is not None and (answers or now + wait_s >= asked + 2.0):  # rounds like the watchdog
            dog.heard(now)
            asked = None
        now += wait_s
        verdict = dog.check(now)
        assert verdict != "dead"
        if verdict == "probe" and asked is None:
            asked = now
