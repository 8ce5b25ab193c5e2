"""Run the fuzzing client of Autobahn against real servers: `python -m fuzzing --wstest FILE`, with `tests` on the path.

The servers are uvicorn with the protocol class of dws, by ASGI messages and by ready frames, and, as a reference, uvicorn
with its own class on the `websockets` library.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from support.server_process import ServerProcess

AGENTS = {
    "dws": ("fuzzing.echo:PatientProtocol", "/asgi"),
    "dws-ready-frames": ("fuzzing.echo:PatientProtocol", "/ready"),
    "uvicorn-websockets": ("websockets", "/asgi"),
}
"""For each server, the protocol class and the path of the application."""

REFERENCE = "uvicorn-websockets"

EXPECTED = frozenset({"7.1.5"})
"""Cases that fail because of a choice of the `websockets` library.

If a close frame arrives before the last fragment of a message, it closes with 1002 instead of the client's code.
"""

_GOOD = frozenset({"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wstest", required=True, help="the program `wstest` of autobahntestsuite 0.8.2")
    parser.add_argument("--cases", default="*", help="for example 1.*,9.3.1")
    parser.add_argument("--agents", default=",".join(AGENTS))
    parser.add_argument("--reports", type=Path, default=Path(tempfile.mkdtemp(prefix="autobahn-")))
    arguments = parser.parse_args()
    agents = arguments.agents.split(",")
    problems = fuzz(arguments.wstest, agents, arguments.cases.split(","), arguments.reports)
    print(f"reports: {arguments.reports}/index.html")
    print(*problems or ["no case fails"], sep="\n")
    sys.exit(bool(problems))


def fuzz(wstest: str, agents: list[str], cases: list[str], reports: Path) -> list[str]:
    """Run the cases against the servers. Return what is wrong with those of dws."""
    reports.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        servers = {agent: stack.enter_context(serving(AGENTS[agent][0], reports)) for agent in agents}
        spec = {
            "outdir": str(reports),
            "servers": [
                {"agent": agent, "url": f"ws://{server.address}{AGENTS[agent][1]}"} for agent, server in servers.items()
            ],
            "cases": cases,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (reports / "spec.json").write_text(json.dumps(spec))
        subprocess.run([wstest, "-m", "fuzzingclient", "-s", str(reports / "spec.json")], check=True)
    for agent, server in servers.items():
        (reports / f"{agent}.log").write_text(server.output)
    return [line for agent in agents if agent != REFERENCE for line in problems_of(agent, reports)]


def serving(protocol: str, folder: Path) -> AbstractContextManager[ServerProcess]:
    """Start uvicorn with a protocol class."""
    command = [sys.executable, "-m", "uvicorn", "fuzzing.echo:app", "--port", "0", "--ws", protocol]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return ServerProcess.open(command, folder, {"PYTHONPATH": path})


def problems_of(agent: str, reports: Path) -> list[str]:
    """Return the failed cases of a server, and whether its log has a traceback."""
    results = json.loads((reports / "index.json").read_text())[agent]
    found = [
        f"{agent}: case {case} has {result['behavior']}, close {result['behaviorClose']}"
        for case, result in results.items()
        if case not in EXPECTED and not {result["behavior"], result["behaviorClose"]} <= _GOOD
    ]
    log = (reports / f"{agent}.log").read_text()
    return [*found, *([f"{agent}: the log has a traceback"] if "Traceback" in log else [])]


if __name__ == "__main__":
    main()
