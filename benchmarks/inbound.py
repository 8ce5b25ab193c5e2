"""Inbound: 1,000 clients that each publish, wait for the ack, and publish again.

    python benchmarks/inbound.py [--quick] [--only dws,naive]

Each message is parsed, authorised (dws only), published, delivered to the only subscriber, and acknowledged. The client
checks every ack and every delivery.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from harness.contenders import chosen
from harness.results import in_rounds, keep, parser
from harness.running import Cores, Load, run

LOAD = Load(subs=1, pubs=1000, acked=True, topic="bench/0", filter="bench/0")
QUICK = ["dws", "naive"]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    cores = Cores.of_this_machine()
    load = Load(**{**_fields(LOAD), "pubs": 50, "seconds": 0.3}) if arguments.quick else LOAD.lasting(arguments.seconds)
    cells: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        (one.name, partial(run, one, load, cores)) for one in chosen(arguments.only, QUICK if arguments.quick else None)
    ]
    print(f"acks per CPU second of the server on core {cores.server}, client on core {cores.client}")
    results = in_rounds(1 if arguments.quick else arguments.rounds, cells, "acks_per_cpu_s")
    if path := keep("inbound", results, arguments, cores, clients=load.pubs):
        print(f"written to {path}")


def _fields(load: Load) -> dict[str, Any]:
    return {name: getattr(load, name) for name in Load.__slots__}


if __name__ == "__main__":
    main()
