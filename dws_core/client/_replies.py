"""The replies that a client waits for, by request number."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from dws_core._errors import DWSError


class Replies:
    """Futures of requests that are not answered yet."""

    def __init__(self) -> None:
        self._pending: dict[int, asyncio.Future[Mapping[str, Any]]] = {}

    def expect(self, number: int) -> asyncio.Future[Mapping[str, Any]]:
        """Return the future of a request's reply. Call `forget` afterwards."""
        reply = self._pending[number] = asyncio.get_running_loop().create_future()
        return reply

    def forget(self, number: int) -> None:
        """Stop waiting for a reply."""
        del self._pending[number]

    def settle(self, number: int, result: Mapping[str, Any] | DWSError) -> None:
        """Complete a request with its reply or with an error. A reply that nobody expects is ignored."""
        reply = self._pending.get(number)
        if reply is None or reply.done():
            return
        if isinstance(result, DWSError):
            reply.set_exception(result)
        else:
            reply.set_result(result)

    def fail_all(self, error: DWSError) -> None:
        """Complete all requests with an error."""
        for number in tuple(self._pending):
            self.settle(number, error)
