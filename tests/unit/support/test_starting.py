from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import starting
from services.starting import wait_until_ready


class Clock:
    """A clock on which each pause takes ten seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += 10.0


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    monkeypatch.setattr(starting, "time", Clock())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running
        running.kill()


def test_slow_server_that_logs_is_waited_for(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    log, asked = tmp_path / "log.txt", 0

    def ready() -> bool:
        nonlocal asked
        asked += 1
        with log.open("a") as file:
            file.write("starting\n")
        return asked == 100

    wait_until_ready("server", ready, process, log)
    assert asked == 100


def test_server_that_hangs_raises_with_its_log(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("1 INFO starting\n2 WARN waits forever\n")
    with pytest.raises(RuntimeError, match="server did not start:\n2 WARN waits forever"):
        wait_until_ready("server", lambda: False, process, tmp_path / "log.txt")


def test_server_that_ends_raises_at_once(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    process.kill()
    process.wait()
    with pytest.raises(RuntimeError, match="did not start"):
        wait_until_ready("server", lambda: False, process, tmp_path / "missing.txt")
