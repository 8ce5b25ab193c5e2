"""Compare this checkout with another one, for example the commit before a change, in the same run.

    git worktree add ../before HEAD~1
    python benchmarks/compare.py --base ../before [--quick] [--rounds 5]

Both checkouts serve the same application under the same load, in turns. For each row it prints the median of both, the
ratio of the medians, the ratio of the best rounds (the least disturbed ones), and the spread of the rounds, which is the
noise. More is better, except for memory.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fanout import ONE_TOPIC
from inbound import LOAD as INBOUND

from harness.contenders import CONTENDERS, Contender
from harness.results import keep, parser
from harness.running import Cores, Load, run

HERE = Path(__file__).parents[1]
FAST, PLAIN = CONTENDERS["dws-server"], CONTENDERS["dws"]
CONNECT = Load(subs=10_000, pubs=0, seconds=0, filter="bench/0")

Row = tuple[Contender, Load, str]

ROWS: dict[str, Row] = {
    **{f"fan-out, {name}": (FAST, load, "deliveries_per_cpu_s") for name, load in ONE_TOPIC.items()},
    "fan-out, 64 in flight, ASGI": (PLAIN, ONE_TOPIC["64 in flight"], "deliveries_per_cpu_s"),
    "inbound": (FAST, INBOUND, "acks_per_cpu_s"),
    "connect": (FAST, CONNECT, "connects_per_cpu_s"),
    "memory of an idle connection, bytes": (FAST, CONNECT, "bytes_each"),
    "memory of an idle connection, ASGI, bytes": (PLAIN, CONNECT, "bytes_each"),
}


def search_path(checkout: Path) -> str:
    """Return the PYTHONPATH with which a server imports a checkout."""
    return os.pathsep.join(str(path) for path in (checkout, *sorted(checkout.glob("plugins/*/src"))))


def measure(checkout: Path, row: Row, cores: Cores, *, quick: bool) -> float | None:
    """Run one row with the code of a checkout. None: it failed, which is printed."""
    contender, load, metric = row
    os.environ["PYTHONPATH"] = search_path(checkout)
    if quick:
        load = load.shorter() if load.pubs else replace(load, subs=500)
    found = run(contender, load, cores)
    if "error" in found:
        print(f"  failed: {found['error']}")
        return None
    return float(found[metric])


def in_turns(rounds: int, base: Callable[[], float | None], ours: Callable[[], float | None]) -> dict[str, Any]:
    """Measure both sides once per round, each first in every other round."""
    before: list[float] = []
    after: list[float] = []
    for number in range(rounds):
        sides = [(base, before), (ours, after)]
        for measured, values in sides if number % 2 == 0 else reversed(sides):
            if (value := measured()) is not None:
                values.append(value)
    if not before or not after:
        return {"error": "no round succeeded"}
    ratio = statistics.median(after) / statistics.median(before)
    best = max(after) / max(before)
    return {"base": before, "ours": after, "ratio": ratio, "best": best, "noise": max(_spread(before), _spread(after))}


def _spread(values: list[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--base", type=Path, required=True, help="the other checkout")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--rows", metavar="A;B", help=f"only these of: {'; '.join(ROWS)}")
    arguments = options.parse_args()
    wanted = [name.strip() for name in arguments.rows.split(";")] if arguments.rows else list(ROWS)
    cores, results = Cores.of_this_machine(), {}
    for name in wanted:
        sides = [
            partial(measure, checkout.resolve(), ROWS[name], cores, quick=arguments.quick)
            for checkout in (arguments.base, HERE)
        ]
        results[name] = in_turns(1 if arguments.quick else arguments.rounds, *sides)
        print(f"{name:44} {_line(results[name])}", flush=True)
    if arguments.json:
        keep("compare", results, arguments, cores)


def _line(found: dict[str, Any]) -> str:
    if "error" in found:
        return f"failed: {found['error']}"
    before, after = statistics.median(found["base"]), statistics.median(found["ours"])
    ratios = f"ratio {found['ratio']:.3f}  best {found['best']:.3f}  noise {found['noise']:.0%}"
    return f"base {before:12,.0f}  ours {after:12,.0f}  {ratios}"


if __name__ == "__main__":
    main()
