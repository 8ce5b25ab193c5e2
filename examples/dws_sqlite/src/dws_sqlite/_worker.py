"""One thread for all of SQLite: the event loop never waits for the file, and jobs run in the order they were given."""

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
    """The thread, as the event loop sees it.

    Args:
        path: The file, for error texts.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "dws-sqlite")

    def submit(self, job: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run a job; the future may fail with what the job raised."""
        return self._loop.run_in_executor(self._thread, job, *args)

    async def run(self, job: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a job and wait for it.

        Raises:
            BrokerUnavailable: SQLite said no.
        """
        try:
            return await self.submit(job, *args)
        except sqlite3.Error as error:
            raise self.wrap(error) from error

    def wrap(self, error: BaseException) -> BrokerUnavailable:
        """Return our error for one of SQLite's."""
        wrapped = BrokerUnavailable(
            f"broker sqlite://{self._path} cannot be used: {error}.", fix="check that the folder exists and is writable"
        )
        wrapped.__cause__ = error
        return wrapped

    def close(self) -> None:
        """End the thread; nothing may be running."""
        self._thread.shutdown()
