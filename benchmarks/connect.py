"""Connections: how many a server opens per CPU second, and how much memory each needs.

    python benchmarks/connect.py [--quick] [--connections 10000] [--only dws,plain]

Every connection subscribes to one topic and receives a reply. 32 handshakes run at the same time. The first 50
connections do not count, because they include the cost of imports and pools.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from harness.contenders import ALONE, CONTENDERS, chosen
from harness.results import in_rounds, keep, parser
from harness.running import Cores, Load, run

QUICK = ["plain", "dws", "naive"]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--connections", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=1)
    arguments = options.parse_args()
    count = 500 if arguments.quick else arguments.connections
    cores = Cores.of_this_machine()
    load = Load(subs=count, pubs=0, seconds=0, filter="bench/0")
    wanted = chosen(arguments.only, QUICK if arguments.quick else [*ALONE, *CONTENDERS])
    cells: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        (one.name, partial(run, one, load, cores)) for one in wanted
    ]
    print(f"{count} connections, connects per CPU second of the server on core {cores.server}")
    results = in_rounds(1 if arguments.quick else arguments.rounds, cells, "connects_per_cpu_s")
    for name, found in results.items():
        if "error" not in found:
            print(f"{name:20} {found['bytes_each']:10,.0f} bytes each {found['connects_per_s']:10,.0f} connects/s")
    if path := keep("connect", results, arguments, cores, connections=count):
        print(f"written to {path}")


if __name__ == "__main__":
    main()
