"""Whether a client may do what it requests: calls the application's `authorize`, for one subject or for many."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Iterable, Iterator
from itertools import islice
from typing import Final

from dws_core._auth.interface import Action, Authorize, Principal
from dws_core._auth.permissions import Permissions
from dws_core._errors import ConfigurationError
from dws_core._topics.interface import TopicMatcher
from dws_core._topics.trie import MqttMatcher
from dws_core._wire.client_errors import Refused

_CONCURRENT_CALLS: Final = 16
"""Maximum number of `authorize` calls of one request that run at the same time."""


class Permission:
    """Calls `authorize`.

    Args:
        authorize: The application's function. If None, everything is allowed.
        matcher: The topic language.

    Raises:
        ConfigurationError: `authorize` has rules in another topic language.
    """

    def __init__(self, authorize: Authorize | None, matcher: TopicMatcher) -> None:
        if isinstance(authorize, Permissions) and not isinstance(matcher, MqttMatcher):
            raise ConfigurationError(
                f"Permissions are rules in the topic language mqtt, but the manager uses {type(matcher).__qualname__}.",
                fix="pass authorize a function that compares filters of your topic language",
            )
        self._authorize = authorize

    async def check(self, principal: Principal | None, action: Action, subjects: Iterable[str]) -> None:
        """Check an action on every subject. An async `authorize` is called for several subjects concurrently.

        Raises:
            Refused: The action is not allowed on one of the subjects.
        """
        for group in _groups(subjects):
            if not all(await self._decide(principal, action, group)):
                raise Refused("forbidden", f"{action} is not allowed here")

    async def forbidden(self, principal: Principal | None, action: Action, subjects: Iterable[str]) -> list[str]:
        """Return the subjects on which an action is not allowed."""
        found: list[str] = []
        for group in _groups(subjects):
            decided = await self._decide(principal, action, group)
            found += [subject for subject, is_allowed in zip(group, decided, strict=True) if not is_allowed]
        return found

    async def _decide(self, principal: Principal | None, action: Action, group: tuple[str, ...]) -> list[bool]:
        if self._authorize is None:
            return [True] * len(group)
        return await _results([self._authorize(principal, action, subject) for subject in group])


def _groups(subjects: Iterable[str]) -> Iterator[tuple[str, ...]]:
    rest = iter(subjects)
    while group := tuple(islice(rest, _CONCURRENT_CALLS)):
        yield group


async def _results(answers: list[bool | Awaitable[bool]]) -> list[bool]:
    """Wait for the answers that are awaitable. If some of them raise, raise the first exception after all have ended."""
    waiting = [answer for answer in answers if inspect.isawaitable(answer)]
    found: list[bool | BaseException] = []
    if len(waiting) == 1:
        found.append(await waiting[0])
    elif waiting:
        found += await asyncio.gather(*waiting, return_exceptions=True)
    for result in found:
        if isinstance(result, BaseException):
            raise result
    awaited = iter(found)
    return [bool(next(awaited) if inspect.isawaitable(answer) else answer) for answer in answers]
