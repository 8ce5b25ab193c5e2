"""Searches for the last messages of topics. Equal searches that run at the same time are joined into one."""

from __future__ import annotations

import asyncio

from dws_core._errors import BrokerUnavailable
from dws_core._node.recovery.history import Found, HistoryReader
from dws_core._tasks import Tasks


class SharedSearches:
    """Finds the last records of topics for many clients that open the same topic.

    Args:
        history: Finds them in the node's cache or reads them from the broker.
        tasks: Runs the reads.
    """

    def __init__(self, history: HistoryReader, tasks: Tasks) -> None:
        self._history = history
        self._tasks = tasks
        self._running: dict[tuple[str, int], asyncio.Future[Found]] = {}

    async def last(self, topic: str, limit: int) -> Found:
        """Return the last records of a topic, up to the node's watermark or to where it was shortly before.

        Raises:
            BrokerUnavailable: The broker cannot be read, or lost its log during the call.
        """
        if (found := self._history.cached(topic, limit)) is not None:
            return found
        key = topic, limit
        if (running := self._running.get(key)) is None:
            running = self._running[key] = asyncio.get_running_loop().create_future()
            self._tasks.spawn(self._search(key, running), name=f"search for the last messages of {topic!r}")
        return await asyncio.shield(running)

    async def _search(self, key: tuple[str, int], running: asyncio.Future[Found]) -> None:
        try:
            running.set_result(await self._history.search(*key))
        except Exception as error:  # noqa: BLE001 -- raised by `last`
            running.set_exception(error)
            running.exception()  # all callers may be gone
        finally:
            del self._running[key]
            if not running.done():
                running.set_exception(BrokerUnavailable("the node stops.", fix="connect to another node"))
                running.exception()
