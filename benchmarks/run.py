"""All benchmarks, then the report. `nox -s bench` runs this program.

    python benchmarks/run.py [--quick] [--only dws,naive] [--report]

A full run takes about 45 minutes and needs an otherwise idle machine. `--quick` takes less than a minute and only shows
that everything works. `--report` measures nothing and writes the page again from the stored results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import report

from harness.results import keep, parser

HERE = Path(__file__).parent
LOADED = ("fanout", "latency", "inbound", "connect")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, help="number of rounds of each benchmark, instead of its default")
    options.add_argument("--report", action="store_true", help="only write the page, from the stored results")
    arguments = options.parse_args()
    if not arguments.report:
        measure(arguments)
    if not arguments.quick:
        report.main()


def measure(arguments: argparse.Namespace) -> None:
    shared = ["--quick"] if arguments.quick else []
    shared += [*(["--only", arguments.only] if arguments.only else [])]
    shared += [*(["--rounds", str(arguments.rounds)] if arguments.rounds else [])]
    for name in LOADED:
        print(f"\n{name}", flush=True)
        rows = ["--rows", "1 in flight;64 in flight"] if arguments.quick and name == "fanout" else []
        subprocess.run([sys.executable, str(HERE / f"{name}.py"), *shared, *rows], check=True)
    print("\ncodecs", flush=True)
    subprocess.run([sys.executable, str(HERE / "codecs.py"), *(["--quick"] if arguments.quick else [])], check=True)
    alone("idle", "--connections", "500" if arguments.quick else "10000", arguments=arguments)
    if not arguments.quick:
        alone("routing", "--json", arguments=arguments)


def alone(name: str, *options: str, arguments: argparse.Namespace) -> None:
    """Run a benchmark that needs no load client, and store the JSON that it prints last."""
    print(f"\n{name}", flush=True)
    command = [sys.executable, str(HERE / f"{name}.py"), *options]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(output, end="", flush=True)
    found = output if output.startswith("{") else output.splitlines()[-1]
    keep(name, json.loads(found), arguments)


if __name__ == "__main__":
    main()
