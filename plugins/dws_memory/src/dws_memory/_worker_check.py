"""Warns when several workers of one server use a memory broker, because their messages do not reach each other.

The first worker locks a file that is named after its parent process. The lock ends with the worker, so a worker that
replaces another one (`uvicorn --reload`) finds it free. The check needs nothing else from the server. Where it cannot
work, it does nothing.
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

_locks: Final[dict[Path, BinaryIO | None]] = {}  # None after a warning


def warn_if_other_worker(name: str, channel: str) -> None:
    """Warn if another worker of the same server has a memory broker of this name and channel.

    Args:
        name: Name of the broker.
        channel: Channel of its node.
    """
    if fcntl is None or not _is_worker():
        return
    path = _path(name, channel)
    if path in _locks:
        return
    try:
        _locks[path] = _lock(path)
    except OSError:
        return  # without a writable folder, the check is impossible
    if _locks[path] is None:
        logger.warning(
            "another worker process of this server uses memory:// for channel %r as well. Each worker has its own log, "
            "so messages published in one worker never reach the clients of the others. Fix: run a single worker, or "
            "use one broker for all workers, such as broker_url='redis://localhost:6379/0' of dws-redis",
            channel,
        )


def remove_worker_lock(name: str, channel: str) -> None:
    """Remove the file of `warn_if_other_worker`, because the broker is stopped. A server does not run exit handlers."""
    path = _path(name, channel)
    if (file := _locks.pop(path, None)) is not None:
        path.unlink(missing_ok=True)
        file.close()


def _path(name: str, channel: str) -> Path:
    key = zlib.crc32(f"{name}\n{channel}".encode("utf-8", "surrogatepass"))
    return Path(tempfile.gettempdir(), f"dws-memory-{os.getppid()}-{key:08x}.lock")


def _is_worker() -> bool:
    """Return whether a server's supervisor started this process (uvicorn, hypercorn, granian, or gunicorn by fork)."""
    return multiprocessing.parent_process() is not None or "gunicorn.arbiter" in sys.modules


def _lock(path: Path) -> BinaryIO | None:
    """Return the locked file, or None if another process holds the lock.

    Raises:
        OSError: The file cannot be opened, or is a link or another user's file, which somebody may have put there.
    """
    assert fcntl is not None  # noqa: S101 -- for the type checker
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "r+b")
    if os.fstat(descriptor).st_uid != os.getuid():
        file.close()
        raise PermissionError(f"{path} belongs to another user")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
