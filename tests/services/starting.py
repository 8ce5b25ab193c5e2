"""Waiting for a started server."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from support.timeouts import HANG_S

_PAUSE_S: Final = 0.01
_SHOWN: Final = 3000


def wait_until_ready(name: str, ready: Callable[[], bool], process: subprocess.Popen[Any], log: Path) -> None:
    """Return when a server is ready, however slow the machine is.

    Args:
        name: Name of the server, for the error.
        ready: Returns whether it is ready.
        process: Its process.
        log: The file to which it writes while it starts. Each new line extends the wait.

    Raises:
        RuntimeError: The process has ended, or has logged nothing for `HANG_S`.
    """
    size, since = -1, time.monotonic()
    while not ready():
        if (now_size := _size(log)) != size:
            size, since = now_size, time.monotonic()
        if process.poll() is not None or time.monotonic() - since > HANG_S:
            lines = log.read_text().splitlines() if log.exists() else []
            shown = "\n".join(line for line in lines if " INFO " not in line)[-_SHOWN:]
            raise RuntimeError(f"{name} did not start:\n{shown}")
        time.sleep(_PAUSE_S)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0
