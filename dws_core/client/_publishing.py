"""Repeating a publish until a node has stored it, refused it for good, or the time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from dws_core._errors import PublishOutcomeUnknown
from dws_core._log.backoff import Backoff
from dws_core._wire.client_errors import Refused

Ask: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class Publishing:
    """Publishes of one client.

    Args:
        ask: Sends a request and returns the node's reply.
        window: Maximum number of unanswered publishes. Further publishes wait.
    """

    def __init__(self, ask: Ask, window: int) -> None:
        self._ask = ask
        self._window = asyncio.Semaphore(window)

    async def publish(self, members: Mapping[str, Any], timeout_s: float) -> str | None:
        """Publish, and retry temporary refusals. Return the position of the message, or None without history.

        Raises:
            Refused: The message is not allowed or malformed.
            PublishOutcomeUnknown: There was no reply in time. The message may be stored.
        """
        backoff = Backoff(first_s=0.1, max_s=2.0)
        try:
            async with asyncio.timeout(timeout_s), self._window:
                while True:
                    try:
                        position: str | None = (await self._ask(members)).get("pos")
                        return position
                    except Refused as error:
                        if not error.temporary:
                            raise
                        await asyncio.sleep(max(error.retry_in_s or 0.0, backoff.next_s()))
        except TimeoutError as error:
            raise PublishOutcomeUnknown(str(members.get("topic", members["type"]))) from error
