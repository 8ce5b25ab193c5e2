"""An event loop with virtual time: it never waits, and its time jumps to the next timer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Deadlock(Exception):
    """Nothing is scheduled, so nothing will ever happen."""


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address, so that a run can be repeated exactly."""

    count = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _Task.count += 1
        self._number = _Task.count
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop for one thread, without sockets and without a selector."""

    def __init__(self) -> None:
        super().__init__()
        _Task.count = 0
        self.now = 0.0
        self.failures: list[str] = []
        self._selector = self
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _, context: self.failures.append(str(context)))

    def time(self) -> float:
        return self.now

    def select(self, timeout: float | None) -> list[Any]:
        """Move the time instead of waiting for it."""
        if timeout is None:
            raise Deadlock
        self.now += timeout
        return []

    def _process_events(self, events: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **kwargs: Any) -> _Task:
        return _Task(coroutine, loop=loop, **kwargs)


def end(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop, and leave no task."""
    for _ in range(10):
        if not (left := asyncio.all_tasks(loop)):
            break
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=10.0))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
