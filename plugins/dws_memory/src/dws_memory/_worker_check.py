"""Whether another worker of the same server runs this broker too: then neither hears the other, and somebody has to be told.

The first worker locks a file that is named after the process that started it; the lock ends with the worker, so one that is
only replaced (`uvicorn --reload`) finds it free. Nothing else is asked of the server, and nothing fails where this cannot work.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import tempfile
import zlib
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Final

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger("dws.memory")

_held: Final[dict[Path, BinaryIO | None]] = {}  # until this process ends; None: warned already


def warn_of_siblings(name: str, channel: str) -> None:
    """Warn if another worker of the same server has a memory broker of this name and channel.

    Args:
        name: Of the broker.
        channel: Of its node.
    """
    if fcntl is None or not _is_worker():
        return
    key = zlib.crc32(f"{name}\n{channel}".encode())
    path = Path(tempfile.gettempdir(), f"dws-memory-{os.getppid()}-{key:08x}.lock")
    if path in _held:
        return
    try:
        _held[path] = _lock(path)
    except OSError:
        return  # no place to write: nothing can be said
    if _held[path] is None:
        logger.warning(
            "another worker process of this server uses memory:// for channel %r, too: each has logs of its own, and what is "
            "published in one is never heard in the others. Fix: run one worker, or give all one broker, such as "
            "broker_url='redis://localhost:6379/0' (pip install dws-redis)",
            channel,
        )


def _is_worker() -> bool:
    """Say whether a server's supervisor started this process (uvicorn, hypercorn, granian; gunicorn forks)."""
    return multiprocessing.parent_process() is not None or "gunicorn.arbiter" in sys.modules


def _lock(path: Path) -> BinaryIO | None:
    """Return the locked file; None if another process has it."""
    assert fcntl is not None  # noqa: S101 -- for the type checker
    file = path.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
