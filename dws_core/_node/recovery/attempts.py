"""Calls of the broker that are repeated when its state changes, so that an outage costs time and no gap."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from dws_core._errors import BrokerError

logger = logging.getLogger("dws")

T = TypeVar("T")

_RETRY_S: Final = 1.0
"""Longest wait before another attempt, in seconds, for brokers that fail without a change of their state."""


class Attempts:
    """Lets calls that failed wait for the next state of the broker.

    Args:
        retry_s: Longest wait before another attempt, in seconds.
    """

    def __init__(self, *, retry_s: float = _RETRY_S) -> None:
        self._retry_s = retry_s
        self._changed = asyncio.Event()

    def on_state(self) -> None:
        """Let all calls that wait try again, because the broker has another state."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def run(self, call: Callable[[], Awaitable[T]], what: str) -> T | None:
        """Call the broker once. After a failure, return None when another attempt may succeed.

        Args:
            call: Calls the broker.
            what: What the call does, for the log: "read partition 3".
        """
        changed = self._changed
        try:
            return await call()
        except BrokerError as error:
            logger.debug("the broker failed to %s, trying again: %s", what, error)
        except Exception:
            logger.exception("the broker failed to %s, trying again", what)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._retry_s):
                await changed.wait()
        return None
