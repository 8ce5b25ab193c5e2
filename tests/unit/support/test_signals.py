"""A signal has acted when the helper returns."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX")

BUSY = """
import threading

def spin() -> None:
    while True:
        pass

for _ in range(4):
    threading.Thread(target=spin).start()
print("ready", flush=True)
spin()
"""
"""Five threads that never sleep: each stops only when it is interrupted."""


@pytest.fixture(params=["proc", "ps"])
def busy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    if request.param == "ps":
        monkeypatch.setattr(signals, "_PROC", tmp_path)
    elif not Path("/proc/self/stat").exists():
        pytest.skip(f"{sys.platform} has no /proc, so the states are read with ps")
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


def test_stop_and_resume_wait_for_all_threads(busy: int) -> None:
    for _ in range(20):
        signals.stop(busy)
        assert signals.thread_states(busy) == {"T"}
        signals.resume(busy)
        assert "T" not in signals.thread_states(busy)
    signals.resume(busy)


def test_kill_ends_stopped_process(busy: int) -> None:
    signals.stop(busy)
    signals.kill(busy)
    assert signals.thread_states(busy) == {"Z"}, "nobody has collected it yet"
    with pytest.raises(ProcessLookupError, match="SIGSTOP"):
        signals.stop(busy)


def test_signal_without_effect_raises(busy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "HANG_S", 0.0)
    with pytest.raises(TimeoutError, match="SIGCONT"):
        signals._send(busy, signal.SIGCONT, lambda states: states == {"T"})
