"""Every server on which applications run: uvicorn with each of its WebSocket protocols, and hypercorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from hypercorn.asyncio import serve as serve_hypercorn
from hypercorn.config import Config
from support.servers import serve
from support.timeouts import HANG_S

EVERY_SERVER: Final = (
    "auto",
    "dws_core.server:WebSocketProtocol",
    "websockets",
    "websockets-sansio",
    "wsproto",
    "hypercorn",
)
"""The WebSocket protocols of uvicorn, and hypercorn."""

_LEGACY: Final = pytest.mark.filterwarnings(
    "ignore:.*legacy:DeprecationWarning",
    "ignore:websockets.server.WebSocketServerProtocol:DeprecationWarning",
    "ignore:The .websockets. implementation",
    "ignore:remove second argument of ws_handler:DeprecationWarning",
)

on_every_server: Final = pytest.mark.parametrize(
    "server",
    [pytest.param(name, marks=_LEGACY if name == "websockets" else ()) for name in EVERY_SERVER],
    ids=lambda name: name.partition(":")[0],
)


@asynccontextmanager
async def serve_on(server: str, app: Any) -> AsyncIterator[str]:
    """Serve with one of `EVERY_SERVER` until the block ends. Yield the URL."""
    if server == "hypercorn":
        async with hypercorn(app) as url:
            yield url
        return
    async with serve(app, ws=server, log_level="info") as running:
        yield running.url


@asynccontextmanager
async def hypercorn(app: Any) -> AsyncIterator[str]:
    """Serve with hypercorn until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = Config()
    port = listener.getsockname()[1]
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = config.shutdown_timeout = 0.2
    stop, started = asyncio.Event(), asyncio.Event()

    async def noticing(scope: Any, receive: Any, send: Any) -> None:
        async def noticed(message: Any) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                started.set()

        await app(scope, receive, noticed if scope["type"] == "lifespan" else send)

    task = asyncio.get_running_loop().create_task(serve_hypercorn(noticing, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    try:
        await asyncio.wait_for(started.wait(), HANG_S)
        yield f"ws://127.0.0.1:{port}"
    finally:
        stop.set()
        await asyncio.wait_for(task, HANG_S)
