from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.backoff import Backoff


def test_delay_bound_doubles_up_to_maximum() -> None:
    backoff = Backoff(lambda: 0.5)
    assert [backoff.next_s() for _ in range(8)] == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5]


def test_reset_restores_first_delay() -> None:
    backoff = Backoff(lambda: 1.0, first_s=1.0, max_s=8.0)
    assert [backoff.next_s() for _ in range(3)] == [1.0, 2.0, 4.0]
    backoff.reset()
    assert backoff.next_s() == 1.0


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 2000))
def test_delay_is_random_share_of_bound(share: float, attempts: int) -> None:
    """This also holds after many failures."""
    backoff = Backoff(lambda: share)
    delays = [backoff.next_s() for _ in range(attempts)]
    assert all(0 <= delay <= 1.0 * share for delay in delays)


def test_delays_differ_between_nodes() -> None:
    assert len({Backoff().next_s() for _ in range(10)}) > 1
