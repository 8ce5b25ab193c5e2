"""Stream brokers under simulated faults: fixed seeds, a virtual clock, no sockets."""

from __future__ import annotations

import pytest
from simulation.mutants import MUTANTS, SEEDS, Mutant
from simulation.plan import make_plan
from simulation.world import run

CHUNK = 25


@pytest.mark.parametrize("first", range(0, 200, CHUNK))
def test_seeds_break_no_guarantee(first: int) -> None:
    """A failing seed replays exactly: `nox -s simulate -- --first SEED --seeds 1`."""
    problems = {seed: found for seed in range(first, first + CHUNK) if (found := run(make_plan(seed)))}
    assert problems == {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_simulation_finds_mutant(mutant: Mutant) -> None:
    with mutant.applied():
        assert any(run(make_plan(seed)) for seed in range(SEEDS)), f"nothing notices: {mutant.rule}"
