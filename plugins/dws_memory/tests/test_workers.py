"""Several workers with `memory://` do not reach each other and log a warning. A single worker logs none."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dws_memory._worker_check import _lock

APP = """
from fastapi import FastAPI
from dws_core import WebSocketManager

manager = WebSocketManager("workers", broker_url="memory://")
app = FastAPI(lifespan=manager.lifespan)
"""
WARNING = "another worker process of this server uses memory://"
STARTED = "Application startup complete"
HANG_S = 60.0
"""Seconds without any output after which a wait is a failure."""
SEVERAL = ("--workers", "3", "--timeout-worker-healthcheck", "300")  # patient on a busy machine


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run uvicorn on an application with a memory broker."""
    (folder / "app.py").write_text(APP)
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0", "--app-dir", str(folder), *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(HANG_S)
        assert process.stdout is not None
        process.stdout.close()


def read_until(process: subprocess.Popen[bytes], text: str, times: int = 1) -> str:
    """Return the output up to the point where a text was printed this many times."""
    assert process.stdout is not None
    found = b""
    while found.count(text.encode()) < times:
        ready, _, _ = select.select([process.stdout], [], [], HANG_S)
        more = os.read(process.stdout.fileno(), 65_536) if ready else b""
        assert more, found.decode()
        found += more
    return found.decode()


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs file locks of POSIX")


def test_several_workers_log_warning(tmp_path: Path) -> None:
    with served(tmp_path, *SEVERAL) as server:
        seen = read_until(server, WARNING, times=2)
    assert "'workers'" in seen
    assert "redis://localhost:6379/0" in seen


def test_single_worker_logs_no_warning(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        assert WARNING not in read_until(server, STARTED)


def test_replacement_worker_logs_no_warning(tmp_path: Path) -> None:
    with served(tmp_path, "--reload") as server:
        seen = read_until(server, STARTED)
        (tmp_path / "app.py").write_text(APP + "\n")
        seen += read_until(server, STARTED)
    assert WARNING not in seen


# -- the lock file has a guessable name in a folder that all users share


def test_lock_file_is_removed_at_exit(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2", "--timeout-worker-healthcheck", "300") as server:
        read_until(server, STARTED, times=2)
        pattern = f"dws-memory-{server.pid}-*.lock"
        assert len(list(Path(tempfile.gettempdir()).glob(pattern))) == 1
    assert list(Path(tempfile.gettempdir()).glob(pattern)) == []


def test_lock_does_not_follow_link(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("precious")
    link.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        _lock(link)
    assert victim.read_text() == "precious"


def test_lock_ignores_file_of_other_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: -1)
    with pytest.raises(PermissionError, match="another user"):
        _lock(tmp_path / "lock")


def test_lock_file_is_private_and_held_once(tmp_path: Path) -> None:
    held = _lock(tmp_path / "lock")
    assert held is not None
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    assert _lock(tmp_path / "lock") is None
    held.close()
