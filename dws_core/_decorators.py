"""Exception handling by decoration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H")
E = TypeVar("E", bound=BaseException)


def handle(exc: type[E], handler: Callable[[E], H]) -> Callable[[Callable[P, R]], Callable[P, R | H]]:
    """Let `handler` handle exceptions of type `exc` that leave the decorated function; both are not async.

    The handler gets the exception, its return value becomes the function's.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R | H]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R | H:
            try:
                return function(*args, **kwargs)
            except exc as error:
                return handler(error)

        return wrapper

    return decorate


def ahandle(
    exc: type[E], handler: Callable[[E], Awaitable[H]]
) -> Callable[[Callable[P, Any]], Callable[P, Awaitable[Any]]]:
    """Let the async `handler` handle exceptions of type `exc` that leave the decorated function, async or not."""

    def decorate(function: Callable[P, Any]) -> Callable[P, Awaitable[Any]]:
        @functools.wraps(function)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                result = function(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result
            except exc as error:
                return await handler(error)

        return wrapper

    return decorate
