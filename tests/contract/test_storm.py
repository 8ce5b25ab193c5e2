"""The reconnect storm runs, and every client receives exactly the missed messages. No test asserts a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(sys.platform != "linux", reason="the storm reads /proc and needs 127.0.1.1: Linux")
def test_every_client_of_storm_receives_missed_messages(tmp_path: Path) -> None:
    """The cursor of a client has at most 40 bytes."""
    file = tmp_path / "storm.json"
    command = [sys.executable, "storm.py", "--quick", "--clients", "40", "--json", str(file)]
    ran = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(file.read_text())["rows"]
    assert rows["cursor_bytes"] <= 40
    for phase in ("resume", "reconnect"):
        assert (rows[phase]["clients"], rows[phase]["messages"], rows[phase]["wrong"]) == (40, 40 * 50, 0)
    assert rows["quiet"]["deliveries"] > 0
