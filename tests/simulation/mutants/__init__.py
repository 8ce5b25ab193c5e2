"""Small changes of the base class. Each breaks one rule, and the simulation or a unit test finds it."""

from __future__ import annotations

from simulation.mutants import epochs, publishing, reads, tail
from simulation.mutants.mutant import RULES

MUTANTS = sorted(
    [*epochs.MUTANTS, *tail.MUTANTS, *publishing.MUTANTS, *reads.MUTANTS],
    key=lambda mutant: list(RULES).index(mutant.rule),
)

SEEDS = 300
"""Number of seeds within which the simulation finds a change."""


def table() -> str:
    """Return all mutants with their rules, and the test that finds each."""
    lines = [(RULES[m.rule], m.name, m.unit or "simulation") for m in MUTANTS]
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    return "\n".join(f"{rule:{widths[0]}}  {name:{widths[1]}}  {found}" for rule, name, found in lines)
