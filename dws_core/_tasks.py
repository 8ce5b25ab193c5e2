"""Supervised background tasks, which report every failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

logger = logging.getLogger("dws")


class Tasks:
    """A set of background tasks that are stopped together.

    An exception of a task is logged once, with the name of the task. `stop` raises all of them again.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failures: list[Exception] = []

    def spawn(
        self, coroutine: Coroutine[Any, Any, Any], *, name: str, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """Run a coroutine in the background, on the running loop, in a context or in a copy of the current one."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def __len__(self) -> int:
        return len(self._tasks)

    async def stop(self) -> None:
        """Cancel all running tasks and wait until they have ended.

        Raises:
            ExceptionGroup: Tasks have failed since the last stop. The group has their exceptions.
        """
        current = asyncio.current_task()
        while pending := [task for task in self._tasks if task is not current]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending)
            await asyncio.sleep(0)  # lets the done callbacks run
        failures, self._failures = self._failures, []
        if failures:
            raise ExceptionGroup("background tasks failed", failures)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            logger.error("background task %r failed", task.get_name(), exc_info=error)
            if isinstance(error, Exception):
                self._failures.append(error)
