"""The benchmarks run, and their client detects faulty servers. No test here asserts a time."""

from __future__ import annotations

import asyncio
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.timeouts import HANG_S
from websockets.asyncio.server import ServerConnection, serve

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LINUX = sys.platform == "linux" and shutil.which("cc") is not None
pytestmark = pytest.mark.skipif(
    not LINUX, reason="the load client needs Linux and a C compiler: apt install gcc libc6-dev"
)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_quick_fanout_benchmark_reports_figures(tmp_path: Path) -> None:
    file = tmp_path / "fanout.json"
    command = [sys.executable, "fanout.py", "--quick", "--only", "dws-server,naive", "--rows", "1 in flight"]
    ran = subprocess.run([*command, "--json", str(file)], cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    row = json.loads(file.read_text())["rows"]["1 in flight"]
    assert set(row) == {"dws-server", "naive"}
    for found in row.values():
        assert "error" not in found, found
        assert found["delivered"] == found["messages"] * found["subs"] > 0
        assert found["lost"] == found["twice"] == found["stray"] == 0
        assert found["deliveries_per_cpu_s"] > 0
        assert found["p99_ms"] >= found["p50_ms"] > 0


class Room:
    """A server that sends each message to all connections, optionally with a flaw."""

    def __init__(self, flaw: str | None) -> None:
        self.flaw = flaw
        self.sockets: list[ServerConnection] = []

    async def handle(self, socket: ServerConnection) -> None:
        async for text in socket:
            if text == "join":
                self.sockets.append(socket)
                await socket.send("joined")
                continue
            for receiver in self.sockets[1:] if self.flaw == "lost" else self.sockets:
                for _ in range(2 if self.flaw == "twice" else 1):
                    await receiver.send(text)


@pytest.mark.parametrize("flaw", [None, "lost", "twice", "stray"])
async def test_load_client_detects_flaws(harness: Any, flaw: str | None) -> None:
    program = harness("harness.build").compiled(BENCHMARKS / "load" / "wsload.c")
    topics = "2" if flaw == "stray" else "1"  # each client subscribes to one of two topics, but the room sends both
    options = ["--subs", "4", "--topics", topics, "--sub", "join", "--sub-frames", "1", "--publish", "%m%p"]
    timing = ["--seconds", "0.2", "--warm", "0", "--stall", "0.5" if flaw == "lost" else str(HANG_S)]
    async with serve(Room(flaw).handle, "127.0.0.1", 0) as server:
        port = str(next(iter(server.sockets)).getsockname()[1])
        client = await asyncio.create_subprocess_exec(
            program, "--port", port, *options, *timing, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(2 * HANG_S):
            output, _ = await client.communicate()
    found = json.loads(output)
    assert found["delivered"] > 0 or flaw == "lost", found
    assert {name for name in ("lost", "twice", "stray") if found[name]} == ({flaw} if flaw else set()), found


def test_unmeasured_goals_are_not_reached(harness: Any) -> None:
    assert {goal.verdict for goal in harness("harness.goals").goals({})} == {"?"}


def test_goal_is_judged_by_its_own_row(harness: Any) -> None:
    row = {"uvloop": {"deliveries_per_cpu_s": 100}, "dws": {"deliveries_per_cpu_s": 89}}
    verdicts = []
    for ours in (89, 90):
        row["dws"]["deliveries_per_cpu_s"] = ours
        verdicts.append(harness("harness.goals").goals({"fanout": {"rows": {"1 in flight": row}}})[0].verdict)
    assert verdicts == ["**no**", "yes"]


def test_every_table_has_place_in_page() -> None:
    page = (BENCHMARKS.parent / "docs/explanation/performance.md").read_text()
    for name in ("goals", "fanout", "topics", "latency", "inbound", "connect", "idle", "routing", "codecs", "machine"):
        assert page.count(f"<!-- begin:{name} -->") == page.count(f"<!-- end:{name} -->") == 1, name


def test_quick_plugins_benchmark_reports_look_ups(tmp_path: Path) -> None:
    file = tmp_path / "plugins.json"
    command = [sys.executable, "plugins.py", "--quick", "--json", str(file)]
    ran = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    rows = {row["name"]: row for row in json.loads(file.read_text())["rows"]}
    assert {"first look-up, 20 more plugins", "import of dws_core"} < set(rows)
    assert all(row["median_ms"] >= row["best_ms"] > 0 for row in rows.values())


def test_quick_past_benchmark_reports_both_requests(tmp_path: Path) -> None:
    """It also counts the messages of each reply, and fails if one is missing."""
    file = tmp_path / "past.json"
    command = [sys.executable, "past.py", "--quick", "--json", str(file)]
    ran = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False, timeout=2 * HANG_S)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(file.read_text())["rows"]
    assert set(rows) == {"100 bytes", "1000 bytes"}
    for row in rows.values():
        assert row["history_us"] > 0
        assert row["ratio"] == pytest.approx(row["subscribe_us"] / row["history_us"], rel=0.05)
