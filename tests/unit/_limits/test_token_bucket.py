"""The token bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dws_core._limits.token_bucket import TokenBucket


def test_burst_passes_then_rate_applies() -> None:
    bucket = TokenBucket(10.0, 2, now=0.0)
    assert [bucket.take(0.0) for _ in range(2)] == [0.0, 0.0]
    assert bucket.take(0.0) == 0.1
    assert bucket.take(0.05) == 0.05
    assert bucket.refused == 2
    assert bucket.take(0.1) == 0.0
    assert bucket.refused == 0


@given(st.lists(st.floats(0, 5), max_size=50), st.integers(1, 5))
def test_burst_and_rate_are_never_exceeded(steps: list[float], burst: int) -> None:
    bucket, now, allowed = TokenBucket(2.0, burst, now=0.0), 0.0, 0
    for step in steps:
        now += step
        allowed += bucket.take(now) == 0.0
        assert allowed <= burst + 2.0 * now + 1e-6
