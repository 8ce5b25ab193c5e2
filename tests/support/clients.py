"""The Python client in tests."""

from __future__ import annotations

import asyncio
from typing import Any

from support.timeouts import HANG_S, progress_timeout

from dws_core._log.backoff import Backoff
from dws_core.client import Client, Gap, Subscription


def client(url: str, **kwargs: Any) -> Client:
    """Return a client that reconnects without delay."""
    options: dict[str, Any] = {"backoff": Backoff(first_s=0.01, max_s=0.02), "connect_timeout_s": HANG_S, **kwargs}
    return Client(url, proxy=False, **options)


async def receive_data(subscription: Subscription, count: int) -> list[Any]:
    """Return the data of the next messages."""
    taken: list[Any] = []
    async with progress_timeout() as progress:
        while len(taken) < count:
            taken.append((await anext(subscription)).data)
            progress()
    return taken


class Gaps(list[Gap]):
    """Collects gaps, and lets a test wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self._arrived = asyncio.Event()

    def __call__(self, gap: Gap) -> None:
        self.append(gap)
        self._arrived.set()

    async def wait(self) -> None:
        """Wait for a gap."""
        async with asyncio.timeout(HANG_S):
            await self._arrived.wait()
