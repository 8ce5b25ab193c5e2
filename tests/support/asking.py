"""Requests of the application to clients: a test sends one, and a client replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from support.servers import Client


@asynccontextmanager
async def asking(request: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Run a request during the block, and cancel it if it still waits."""
    task = asyncio.get_running_loop().create_task(request)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def receive_request(client: Client) -> Any:
    """Receive the next frame, which must be a request."""
    frame = await client.receive()
    assert frame["type"] == "request"
    return frame


async def reply(client: Client, to: str, data: Any) -> Any:
    """Send a reply with an id, and return the node's response."""
    return await client.request(type="reply", to=to, data=data)
