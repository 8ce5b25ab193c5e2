"""Stream brokers under simulated faults: fixed seeds, a virtual clock, no sockets. And mutants that must be found."""

from __future__ import annotations

import importlib
import inspect

import pytest
from simulation.mutants import MUTANTS, SEEDS, table
from simulation.mutants.mutant import RULES, Mutant
from simulation.plan import make_plan
from simulation.world import run

ALL = 2000
CHUNK = 100


@pytest.mark.parametrize("first", range(0, ALL, CHUNK))
def test_seeds_break_no_guarantee(first: int) -> None:
    """A failing seed replays exactly: `nox -s simulate -- --first SEED --seeds 1`."""
    problems = {seed: found for seed in range(first, first + CHUNK) if (found := run(make_plan(seed)))}
    assert problems == {}


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if not m.unit], ids=lambda mutant: mutant.name)
def test_simulation_finds_mutant(mutant: Mutant) -> None:
    with mutant.applied():
        assert any(run(make_plan(seed)) for seed in range(SEEDS)), f"nothing notices: {mutant.rule}"


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.unit], ids=lambda mutant: mutant.name)
def test_unit_test_finds_mutant(mutant: Mutant) -> None:
    module, _, name = mutant.unit.partition(":")
    test = getattr(importlib.import_module(f"unit._log.stream.{module}"), name)
    assert not inspect.iscoroutinefunction(test), "it would not run here"
    test()
    with mutant.applied(), pytest.raises((Exception, pytest.fail.Exception)):
        test()


def test_each_rule_has_a_mutant() -> None:
    """Prints the table of mutants. See it with `pytest -s -k each_rule`."""
    print("", table(), sep="\n")  # noqa: T201
    assert {mutant.rule for mutant in MUTANTS} == set(RULES)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40
