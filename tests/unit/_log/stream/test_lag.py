from __future__ import annotations

from dws_core._log.stream.lag import Lag


def _suspicious() -> Lag:
    """Return the lag of a tail that has read an old envelope, with probe 7 on its way since second 10."""
    lag = Lag(2.0)
    assert lag.read(60.0, 10.0)
    lag.asked(7, 10.0)
    return lag


def test_young_envelopes_cost_no_probe() -> None:
    lag = Lag(2.0)
    assert not lag.read(1.9, 10.0)
    assert not lag.read(-60.0, 10.0), "the clock of the publisher is ahead"
    assert not lag.is_behind


def test_old_envelope_costs_one_probe() -> None:
    lag = _suspicious()
    assert not lag.read(60.0, 10.5)
    assert not lag.is_behind, "the clock of the publisher may be wrong"


def test_probe_that_does_not_arrive_proves_the_lag() -> None:
    lag = _suspicious()
    lag.read(60.0, 12.1)
    assert lag.is_behind


def test_quick_probe_disproves_the_lag() -> None:
    lag = _suspicious()
    lag.seen(7, 10.1)
    assert not lag.is_behind
    assert not lag.read(60.0, 11.0), "the next probe has time"
    assert lag.read(60.0, 12.2)


def test_slow_probe_keeps_the_lag_until_the_tail_is_at_the_end() -> None:
    lag = _suspicious()
    lag.seen(6, 15.0)
    lag.seen(7, 20.0)
    assert lag.is_behind
    assert not lag.read(0.1, 20.1)
    assert not lag.is_behind


def test_lost_probe_does_not_matter_at_the_end_of_the_stream() -> None:
    """The wire may refuse it."""
    lag = _suspicious()
    lag.read(60.0, 15.0)
    assert lag.is_behind
    assert not lag.read(0.1, 16.0)
    assert not lag.is_behind
    assert lag.read(60.0, 17.0), "the next suspicion costs a new probe"


def test_unasked_probe_says_nothing() -> None:
    lag = Lag(2.0)
    lag.seen(3, 100.0)
    assert not lag.is_behind
