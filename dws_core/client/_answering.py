"""Replying to the requests of a node."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from dws_core._errors import DWSError
from dws_core._tasks import Tasks
from dws_core._wire.message import JSON
from dws_core.client._events import Requested

logger = logging.getLogger("dws.client")

OnRequest: TypeAlias = Callable[[JSON], Awaitable[JSON] | JSON]
"""Called with the data of a request. Returns the data of the reply. Sync or async."""

Send: TypeAlias = Callable[[Mapping[str, Any], float], Awaitable[object]]

_MAX_RUNNING: Final = 100
"""Maximum number of requests that are answered at the same time. Further requests are not answered."""


class Answering:
    """Calls the application's function for each request, and sends its result as the reply.

    Args:
        send: Sends a message, and retries temporary refusals for a number of seconds.
        tasks: Background tasks, in which the function runs.

    Attributes:
        handler: The application's function. If None, requests are not answered.
    """

    def __init__(self, send: Send, tasks: Tasks) -> None:
        self.handler: OnRequest | None = None
        self._send = send
        self._tasks = tasks
        self._running = 0

    def begin(self, request: Requested) -> None:
        """Answer a request in the background. Exceptions of the application's function are logged."""
        if self.handler is None or self._running >= _MAX_RUNNING:
            why = "there is no on_request" if self.handler is None else f"{_MAX_RUNNING} others are being answered"
            logger.warning("a request of the node is not answered, because %s", why)
            return
        self._running += 1
        self._tasks.spawn(self._answer(request, self.handler), name="on_request of a dws client")

    async def _answer(self, request: Requested, handler: OnRequest) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + request.timeout_s
        limit = asyncio.timeout_at(until)
        try:
            async with limit:
                result = handler(request.data)
                data = await result if inspect.isawaitable(result) else result
            await self._send({"type": "reply", "to": request.reply_to, "data": data}, max(0.0, until - loop.time()))
        except DWSError as error:
            logger.warning("the reply to a request of the node was not accepted: %s", error)
        except Exception:
            if limit.expired():
                logger.warning("on_request took longer than the %g s of the request", request.timeout_s)
            else:
                logger.exception("on_request raised an exception")
        finally:
            self._running -= 1
