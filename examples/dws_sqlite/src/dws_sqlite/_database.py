"""A connection to the file, in its own thread because SQLite blocks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from dws_core.plugin import WireLost

_BUSY_S: Final = 2.0
"""How long to wait while another process writes, in seconds."""


class Database:
    """A connection that runs one transaction after the other.

    Args:
        path: Path of the file. A missing file is created.
        synchronous: The setting of SQLite with this name.

    Attributes:
        finished: Whether to refuse all transactions. Set after the first error, so that no later transaction changes
            anything.
    """

    def __init__(self, path: str, synchronous: str) -> None:
        self.finished = False
        self._path, self._synchronous = path, synchronous
        self._thread = ThreadPoolExecutor(1, "dws-sqlite")
        self._db: sqlite3.Connection | None = None

    async def run(self, *statements: tuple[Any, ...]) -> list[Any]:
        """Run a transaction, and return the rows of its last statement.

        Args:
            *statements: SQL and its parameters, for each statement.

        Raises:
            WireLost: This transaction failed, or an earlier one, or the path is another file now.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, statements)

    async def close(self) -> None:
        """Close the connection. If a transaction still runs after half a second, the thread closes it later.

        The thread ends with this object.
        """
        self.finished = True
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        await asyncio.wait({closing}, timeout=0.5)

    def _run(self, statements: tuple[tuple[Any, ...], ...]) -> list[Any]:
        if self.finished:
            raise WireLost("the file was closed", sent=False)
        try:
            with self._open() as db:
                return [db.execute(sql, parameters).fetchall() for sql, *parameters in statements][-1]
        except (sqlite3.Error, OSError) as error:
            self.finished = True
            # Without the lock of the file, nothing was changed.
            raise WireLost(str(error), sent=getattr(error, "sqlite_errorname", "") != "SQLITE_BUSY") from error

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level="IMMEDIATE")
            with contextlib.suppress(sqlite3.OperationalError):  # another process sets it at the same time
                self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {self._synchronous}")
            self._file = os.stat(self._path)
        elif not os.path.samestat(self._file, os.stat(self._path)):
            raise FileNotFoundError(f"{self._path} was replaced")
        return self._db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
