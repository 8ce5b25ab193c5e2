"""Decorators for exception handling."""

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
    """Handle exceptions of the decorated function with `handler`. Both functions must be sync.

    If the function raises, the handler's result becomes the result of the function.

    Args:
        exc: Type of the exceptions to handle.
        handler: Function to call with the exception.
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
    """Handle exceptions of the decorated function, sync or async, with an async `handler`.

    The decorated function becomes async. If it raises, the handler's result becomes its result.

    Args:
        exc: Type of the exceptions to handle.
        handler: Async function to call with the exception.
    """

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
