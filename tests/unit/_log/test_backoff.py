from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.backoff import Backoff


def test_the_bound_doubles_up_to_the_maximum() -> None:
    backoff = Backoff(lambda: 0.5)
    assert [backoff.next_s() for _ in range(8)] == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5]


def test_success_starts_anew() -> None:
    backoff = Backoff(lambda: 1.0, first_s=1.0, max_s=8.0)
    assert [backoff.next_s() for _ in range(3)] == [1.0, 2.0, 4.0]
    backoff.reset()
    assert backoff.next_s() == 1.0


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 2000))
def test_a_delay_is_the_drawn_share_of_the_bound_however_often_it_fails(share: float, attempts: int) -> None:
    backoff = Backoff(lambda: share)
    delays = [backoff.next_s() for _ in range(attempts)]
    assert all(0 <= delay <= 1.0 * share for delay in delays)


def test_delays_differ_between_nodes() -> None:
    assert len({Backoff().next_s() for _ in range(10)}) > 1
