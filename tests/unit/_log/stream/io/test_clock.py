from __future__ import annotations

import time

from dws_core._log.stream.io.clock import Clock


def test_time_is_in_milliseconds_since_1970() -> None:
    before = time.time() * 1000
    assert before - 1 <= Clock().now_ms() <= time.time() * 1000 + 1


def test_epochs_differ() -> None:
    clock = Clock()
    epochs = {clock.new_epoch() for _ in range(100)}
    assert len(epochs) == 100
    assert {len(epoch) for epoch in epochs} == {8}


def test_random_numbers_are_in_range() -> None:
    assert 0 <= Clock().rng.random() < 1
