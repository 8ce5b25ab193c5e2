"""Replaces the token of an open connection before it expires."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dws_core._errors import DWSError
from dws_core._tasks import Tasks
from dws_core.client._endpoint import Endpoint

logger = logging.getLogger("dws.client")


class Refreshing:
    """Sends the node a new token. If that fails, the node closes with 4002, and the next connection sends one.

    Args:
        endpoint: Its token function returns the new token. A fixed token is not sent again.
        ask: Sends a request and returns the reply.
        tasks: Runs the refresh in the background.
    """

    def __init__(
        self, endpoint: Endpoint, ask: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]], tasks: Tasks
    ) -> None:
        self._endpoint = endpoint
        self._ask = ask
        self._tasks = tasks
        self._running: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Refresh the token, unless that is already in progress."""
        if callable(self._endpoint.token) and self._running is None:
            self._running = self._tasks.spawn(self._refresh(), name="dws client refreshes its token")

    def end(self) -> None:
        """Stop, because the connection has ended. The next one sends a new token in its handshake."""
        if self._running is not None:
            self._running.cancel()
            self._running = None

    async def _refresh(self) -> None:
        try:
            await self._ask({"type": "refresh", "data": {"token": await self._endpoint.fresh_token()}})
        except DWSError as error:
            logger.warning("cannot refresh the token: %s", error)
        self._running = None
