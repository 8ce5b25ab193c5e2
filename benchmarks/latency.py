"""Latency by rate: from the time when a publish is due until each of 100 subscribers has received the message.

    python benchmarks/latency.py [--quick] [--only dws,naive]

First, the benchmark measures the saturation of each contender with four messages in flight. Then it sends at fixed
rates of up to 90 % of that. If the client sends a message late, the delay counts for the server too. The output also
shows how late the client was.
"""

from __future__ import annotations

from typing import Any

from harness.contenders import Contender, chosen
from harness.results import keep, median_run, parser
from harness.running import Cores, Load, run

SUBSCRIBERS = 100
RATES = (50, 100, 200, 400, 800)
CONTENDERS = [
    "floor",
    "uvloop",
    "dws-server",
    "dws",
    "naive",
    "broadcaster",
    "fdws",
    "fastapi-websockets",
    "socketio",
    "channels",
]
QUICK = ["dws", "naive"]


def saturation(contender: Contender, cores: Cores, seconds: float) -> dict[str, Any]:
    """Return the closed-loop run, including `messages_per_s`, the maximum rate of this contender."""
    found = run(contender, Load(subs=SUBSCRIBERS, window=4, seconds=seconds), cores)
    return found if "error" in found else {**found, "messages_per_s": found["messages"] / found["wall_s"]}


def at_rate(contender: Contender, rate: int, cores: Cores, seconds: float, rounds: int) -> dict[str, Any]:
    load = Load(subs=SUBSCRIBERS, rate=rate, seconds=seconds)
    return median_run([run(contender, load, cores) for _ in range(rounds)], "p99_ms")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    seconds, rounds = (0.4, 1) if arguments.quick else (arguments.seconds, arguments.rounds)
    rates = RATES[:2] if arguments.quick else RATES
    cores = Cores.of_this_machine()
    wanted = chosen(arguments.only, QUICK if arguments.quick else CONTENDERS)
    most = {one.name: saturation(one, cores, seconds) for one in wanted}
    for name, found in most.items():
        print(
            f"{name:20} saturates at {found['messages_per_s']:.0f}/s"
            if "error" not in found
            else f"{name}: {found['error']}"
        )
    table: dict[str, dict[str, Any]] = {}
    for rate in rates:
        row = table[str(rate)] = {}
        for one in wanted:
            if rate < 0.9 * most[one.name].get("messages_per_s", 0):
                row[one.name] = at_rate(one, rate, cores, seconds, rounds)
                print(f"{rate:5}/s {one.name:20} {_line(row[one.name])}", flush=True)
    if path := keep("latency", table, arguments, cores, saturation=most, subscribers=SUBSCRIBERS):
        print(f"written to {path}")


def _line(found: dict[str, Any]) -> str:
    if "error" in found:
        return f"failed: {found['error']}"
    return f"p50 {found['p50_ms']:8.3f} ms  p99 {found['p99_ms']:8.3f} ms  client late by {found['late_p99_ms']:.3f} ms (p99)"


if __name__ == "__main__":
    main()
