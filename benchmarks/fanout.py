"""Fan-out: how many messages each contender delivers per CPU second of its server process.

    python benchmarks/fanout.py [--quick] [--only dws,naive] [--rows "1 in flight"] [--rounds 3]

One client, the same for all, publishes over WebSockets through the application and checks every delivery. All
contenders take turns in one run, with one core for the server and one for the client. Compare the ratios, not the
rates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from harness.contenders import Contender, chosen
from harness.results import in_rounds, keep, parser
from harness.running import Cores, Load, run

ONE_TOPIC = {
    "1 in flight": Load(window=1, pubs=1),
    "4 in flight": Load(window=4, pubs=1),
    "64 in flight": Load(window=64, pubs=16),
}
TOPICS = {
    "10 topics": Load(window=64, pubs=16, topics=10),
    "100 topics": Load(window=64, pubs=16, topics=100),
}
WILDCARDS = {
    "wildcard, shared": Load(window=64, pubs=16, topics=10, filter="bench/+", everything=True),
    "wildcard, 10 filters": Load(window=64, pubs=16, topics=10, filter="bench/%g/#", topic="bench/%g/leaf"),
    "wildcard, 1 in flight": Load(window=1, pubs=1, topics=10, filter="bench/+", everything=True),
}
LARGE = {"10,000 subscribers": Load(subs=10_000, window=1, pubs=1)}
ROWS = {**ONE_TOPIC, **TOPICS, **WILDCARDS, **LARGE}
QUICK = ["floor", "uvloop", "dws-server", "dws", "naive"]


FAST = [*QUICK, "broadcaster", "socketio"]


def takes_part(contender: Contender, row: str) -> bool:
    """Return whether to run a contender for a row. Slow contenders need minutes just to open 10,000 connections."""
    if row in LARGE:
        return contender.name in FAST
    return contender.wildcards if row in WILDCARDS else True


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rows", metavar="A;B", help=f"run only these rows, out of: {'; '.join(ROWS)}")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=3.0)
    arguments = options.parse_args()
    rows = [name.strip() for name in arguments.rows.split(";")] if arguments.rows else list(ROWS)
    cores = Cores.of_this_machine()
    cells: list[tuple[str, Callable[[], dict[str, Any]]]] = []
    for row in rows:
        load = ROWS[row].shorter() if arguments.quick else ROWS[row].lasting(arguments.seconds)
        wanted = [one for one in chosen(arguments.only, QUICK if arguments.quick else None) if takes_part(one, row)]
        cells += [(f"{row} / {one.name}", partial(run, one, load, cores)) for one in wanted]
    print(f"deliveries per CPU second of the server on core {cores.server}, client on core {cores.client}")
    results = in_rounds(1 if arguments.quick else arguments.rounds, cells, "deliveries_per_cpu_s")
    table: dict[str, dict[str, Any]] = {row: {} for row in rows}
    for key, result in results.items():
        row, _, name = key.partition(" / ")
        table[row][name] = result
    if path := keep("fanout", table, arguments, cores):
        print(f"written to {path}")


if __name__ == "__main__":
    main()
