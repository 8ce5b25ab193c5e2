"""Starting a coroutine as a part of a task, without waiting until the event loop runs the task.

The coroutine runs with the task as `asyncio.current_task()` and in the context of the task, from its first step on. If it
waits, the task must await `rest_of` it. So timeouts, cancellations and context variables work as if the task had awaited it
from the beginning.
"""

from __future__ import annotations

import asyncio
from asyncio import _enter_task, _leave_task, get_running_loop
from collections.abc import Coroutine, Generator
from contextvars import Context
from functools import partial
from types import coroutine as awaitable_generator
from typing import Any

_NOT_STARTED = object()


def start_in_task(coroutine: Coroutine[Any, Any, Any], task: asyncio.Task[Any], context: Context) -> Any:
    """Run a new coroutine until it waits. If another task is running, do not start it.

    Args:
        coroutine: The coroutine.
        task: The task, which does not run.
        context: The context of the task.

    Returns:
        The object that `rest_of` needs.

    Raises:
        StopIteration: The coroutine has returned.
        Exception: The coroutine has raised.
    """
    loop = get_running_loop()
    try:
        _enter_task(loop, task)
    except RuntimeError:
        return _NOT_STARTED
    try:
        return context.run(coroutine.send, None)
    finally:
        _leave_task(loop, task)


@awaitable_generator
def rest_of(coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """Continue a coroutine in the task in which it was started."""
    if waits_for is _NOT_STARTED:
        return (yield from coroutine.__await__())
    while True:
        try:
            value = yield waits_for
        except BaseException as error:  # noqa: BLE001 -- a cancellation, which the coroutine must receive
            step = partial(coroutine.throw, error)
        else:
            step = partial(coroutine.send, value)
        try:
            waits_for = step()
        except StopIteration as end:
            return end.value
