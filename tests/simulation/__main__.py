"""Run the simulation: `python -m simulation --seeds 2000 [--first 0]`, with the folder `tests` on the path."""

from __future__ import annotations

import argparse
import sys
import time

from simulation.plan import make_plan, shrink
from simulation.world import run


def kind(problem: str) -> str:
    """Return the first word of a problem."""
    return problem.split(maxsplit=1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        plan = make_plan(seed)
        if problems := run(plan):
            kinds = {kind(problem) for problem in problems}
            short = shrink(plan, lambda plan: any(kind(problem) in kinds for problem in run(plan)))
            print(f"seed {seed} fails:", *problems[:10], sep="\n  ")
            print("the shortest plan that fails:", short, *run(short)[:10], sep="\n  ")
            sys.exit(1)
    seconds = time.monotonic() - began
    print(f"{arguments.seeds} seeds, nothing wrong, {arguments.seeds / seconds * 60:,.0f} seeds per minute")


if __name__ == "__main__":
    main()
