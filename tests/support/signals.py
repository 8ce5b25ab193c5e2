"""Signals that have taken effect when the call returns.

`os.kill` returns as soon as the kernel has recorded the signal. The process may continue for a while,
longer on a busy machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from support.timeouts import HANG_S

_PROC: Final = Path("/proc")
_PAUSE_S: Final = 0.001
_STOPPED: Final = "T"
_ENDED: Final = frozenset("ZX")


def stop(pid: int) -> None:
    """Send SIGSTOP and return when every thread of the process has stopped."""
    _send(pid, signal.SIGSTOP, lambda states: states == {_STOPPED})


def resume(pid: int) -> None:
    """Send SIGCONT and return when no thread of the process is stopped any more."""
    _send(pid, signal.SIGCONT, lambda states: _STOPPED not in states)


def kill(pid: int) -> None:
    """Send SIGKILL and return when the process has ended, whether or not its parent has collected it."""
    _send(pid, signal.SIGKILL, has_ended)


def thread_states(pid: int) -> set[str]:
    """Return the states of a process's threads as one letter each (proc(5)), or nothing if there is no such process.

    Without `/proc`, the state of the whole process as `ps` shows it.
    """
    if not (_PROC / "self/stat").exists():
        shown = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return {line.strip()[0] for line in shown.stdout.splitlines() if line.strip()}
    found = set()
    for file in (_PROC / str(pid) / "task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended in the meantime
            found.add(file.read_text().rpartition(")")[2].split()[0])
    return found


def has_ended(states: set[str]) -> bool:
    """Whether these are the states of a process that has ended."""
    return states <= _ENDED


def _send(pid: int, number: signal.Signals, has_acted: Callable[[set[str]], bool]) -> None:
    os.kill(pid, number)
    until = time.monotonic() + HANG_S
    while not has_acted(states := thread_states(pid)):
        if has_ended(states):
            raise ProcessLookupError(f"process {pid} ended before {number.name} acted")
        if time.monotonic() > until:
            raise TimeoutError(f"process {pid} is in state {states}, {HANG_S} s after {number.name}")
        time.sleep(_PAUSE_S)  # no call waits for the state of a process that is not a child
