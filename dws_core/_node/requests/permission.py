"""Whether a client may do what it requests: calls the application's `authorize`, for one subject or for many."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Iterable
from itertools import islice
from typing import Final

from dws_core._auth.interface import Action, Authorize, Principal
from dws_core._wire.client_errors import Refused

_CONCURRENT_CALLS: Final = 16
"""Maximum number of `authorize` calls of one request that run at the same time."""


class Permission:
    """Calls `authorize`.

    Args:
        authorize: The application's function. If None, everything is allowed.
    """

    def __init__(self, authorize: Authorize | None) -> None:
        self._authorize = authorize

    async def check(self, principal: Principal | None, action: Action, subjects: Iterable[str]) -> None:
        """Check an action on every subject. An async `authorize` is called for several subjects concurrently.

        Raises:
            Refused: The action is not allowed on one of the subjects.
        """
        if self._authorize is None:
            return
        rest = iter(subjects)
        while group := tuple(islice(rest, _CONCURRENT_CALLS)):
            answers = [self._authorize(principal, action, subject) for subject in group]
            if not all(await _results(answers)):
                raise Refused("forbidden", f"{action} is not allowed here")


async def _results(answers: list[bool | Awaitable[bool]]) -> list[bool]:
    """Wait for the answers that are awaitable. If some of them raise, raise the first exception after all have ended."""
    waiting = [answer for answer in answers if inspect.isawaitable(answer)]
    decided = [answer for answer in answers if not inspect.isawaitable(answer)]
    if len(waiting) < 2:
        return [*decided, *[await answer for answer in waiting]]
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        decided.append(result)
    return decided
