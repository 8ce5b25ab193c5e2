from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.stream.lookback import LOOKBACK_MS, Lookback
from dws_core._log.stream.wire import Start

NOW = 10**9


def test_search_ends_before_the_window() -> None:
    search = Lookback(1000, NOW)
    assert search.sample == 936
    search.found(NOW - 10, suitable=True)
    assert search.start is None
    assert search.sample == 936 - 128
    search.found(NOW - LOOKBACK_MS, suitable=True)
    assert search.start == 808


def test_unsuitable_envelope_does_not_end_the_search() -> None:
    search = Lookback(1000, NOW)
    search.found(NOW - LOOKBACK_MS, suitable=False)
    assert search.start is None


def test_short_stream_is_read_from_its_first_record() -> None:
    search = Lookback(10, NOW)
    assert search.sample == 0
    search.found(NOW - 10, suitable=True)
    assert search.start is Start.FIRST


def test_removed_place_means_the_first_record() -> None:
    search = Lookback(1000, NOW)
    search.missing()
    assert search.start is Start.FIRST


@given(st.integers(0, 10**7), st.integers(1, 5000))
def test_start_covers_the_window_within_few_steps(end: int, per_s: int) -> None:
    """The stream has `per_s` envelopes per second."""
    search = Lookback(end, NOW)
    steps = 0
    while search.start is None:
        steps += 1
        search.found(NOW - (end - search.sample) * 1000 // per_s, suitable=True)
    assert steps < 25
    if isinstance(search.start, int):
        assert (end - search.start) * 1000 // per_s >= LOOKBACK_MS
