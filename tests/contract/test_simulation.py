"""Stream brokers under simulated faults: fixed seeds, a virtual clock, no sockets."""

from __future__ import annotations

import pytest
from simulation.plan import make_plan
from simulation.world import run

CHUNK = 25


@pytest.mark.parametrize("first", range(0, 200, CHUNK))
def test_seeds_break_no_guarantee(first: int) -> None:
    """A failing seed replays exactly: `python -m simulation --first SEED --seeds 1` in the folder `tests`."""
    problems = {seed: found for seed in range(first, first + CHUNK) if (found := run(make_plan(seed)))}
    assert problems == {}
