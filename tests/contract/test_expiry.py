"""The benchmark of expiries runs, and every connection is closed with 4002 after its token. No test asserts a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc and needs 127.0.1.1: Linux")
def test_every_expired_client_of_benchmark_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "expiry.json"
    command = [sys.executable, "expiry.py", "--quick", "--clients", "40", "--json", str(file)]
    ran = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(file.read_text())["rows"]
    (found,) = rows["rounds"]
    assert found["expiring"]["closed"] == 40
    assert 0 <= found["expiring"]["first_s"] <= found["expiring"]["last_s"]
    assert found["quiet"]["deliveries"] > 0
    assert len(rows["summary"]["p99_rise_ms"]) == 1
