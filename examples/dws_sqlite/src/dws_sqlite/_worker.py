"""One thread for all calls of SQLite. The event loop never waits for the file, and jobs run in order."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from dws_core.plugin import BrokerUnavailable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Worker:
    """Runs jobs in the thread for an event loop.

    Args:
        path: Path of the file, for error messages.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "dws-sqlite")

    def submit(self, job: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run a job. The future fails with the exception of the job."""
        return self._loop.run_in_executor(self._thread, job, *args)

    async def run(self, job: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a job and wait for it.

        Raises:
            BrokerUnavailable: SQLite raised an error.
        """
        try:
            return await self.submit(job, *args)
        except sqlite3.Error as error:
            raise self.wrap(error) from error

    def wrap(self, error: BaseException) -> BrokerUnavailable:
        """Return the dws error for an error of SQLite."""
        wrapped = BrokerUnavailable(
            f"broker sqlite://{self._path} cannot be used: {error}.", fix="check that the folder exists and is writable"
        )
        wrapped.__cause__ = error
        return wrapped

    def close(self) -> None:
        """End the thread. No job may be running."""
        self._thread.shutdown()
