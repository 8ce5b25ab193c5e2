"""The token bucket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core._limits.token_bucket import TokenBucket


def test_burst_passes_then_rate_applies() -> None:
    bucket = TokenBucket(10.0, 2, now=0.0)
    assert [bucket.take(0.0) for _ in range(2)] == [0.0, 0.0]
    assert bucket.take(0.0) == 0.1
    assert bucket.take(0.1) == 0.0


def test_events_refused_together_try_again_one_after_the_other() -> None:
    bucket = TokenBucket(10.0, 5, now=0.0)
    assert [bucket.take(0.0) for _ in range(5)] == [0.0] * 5
    times = [bucket.take(0.0) for _ in range(5)]
    assert times == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert [bucket.take(time + 1e-9) for time in times] == [0.0] * 5


def test_flood_does_not_lengthen_the_wait_without_bound() -> None:
    bucket = TokenBucket(10.0, 5, now=0.0)
    assert max(bucket.take(0.0) for _ in range(10_000)) == pytest.approx(0.6)
    assert bucket.take(1.0) == 0.0


@given(st.lists(st.floats(0, 5), max_size=50), st.integers(1, 5))
def test_burst_and_rate_are_never_exceeded(steps: list[float], burst: int) -> None:
    bucket, now, allowed = TokenBucket(2.0, burst, now=0.0), 0.0, 0
    for step in steps:
        now += step
        allowed += bucket.take(now) == 0.0
        assert allowed <= burst + 2.0 * now + 1e-6


def test_event_may_cost_several_tokens() -> None:
    bucket = TokenBucket(10.0, 5, now=0.0)
    assert bucket.take(0.0, 4) == 0.0
    assert bucket.take(0.0, 4) == pytest.approx(0.3)
    assert bucket.take(0.3, 4) == 0.0


def test_cost_over_burst_leaves_debt() -> None:
    bucket = TokenBucket(10.0, 5, now=0.0)
    assert bucket.take(0.0, 8) == 0.0
    assert bucket.take(0.0) == pytest.approx(0.4)
    assert bucket.take(0.4) == 0.0
    assert bucket.take(0.4, 8) == pytest.approx(0.4)


def test_charge_takes_tokens_without_question() -> None:
    bucket = TokenBucket(10.0, 5, now=0.0)
    bucket.charge(7)
    assert bucket.take(0.0) == pytest.approx(0.3)
