"""Every server on which applications run: uvicorn with each of its WebSocket protocols, hypercorn and granian."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from granian.constants import Interfaces
from granian.server.embed import Server as GranianServer
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
    "granian",
)
"""The WebSocket protocols of uvicorn, and two other servers."""

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
    if server in ("hypercorn", "granian"):
        async with (hypercorn if server == "hypercorn" else granian)(app) as url:
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
    stop = asyncio.Event()
    noticing, started = _noticing(app)
    task = asyncio.get_running_loop().create_task(serve_hypercorn(noticing, config, shutdown_trigger=stop.wait))
    try:
        await asyncio.wait_for(started.wait(), HANG_S)
        yield f"ws://127.0.0.1:{port}"
    finally:
        stop.set()
        await asyncio.wait_for(task, HANG_S)


@asynccontextmanager
async def granian(app: Any) -> AsyncIterator[str]:
    """Serve with granian until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    noticing, started = _noticing(app)
    server = GranianServer(noticing, port=port, interface=Interfaces.ASGI, log_enabled=False)
    task = asyncio.get_running_loop().create_task(server.serve())
    try:
        await asyncio.wait_for(started.wait(), HANG_S)
        yield f"ws://127.0.0.1:{port}"
    finally:
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait_for(task, HANG_S)


def _noticing(app: Any) -> tuple[Any, asyncio.Event]:
    """Return an application whose start sets the event."""
    started = asyncio.Event()

    async def noticing(scope: Any, receive: Any, send: Any) -> None:
        async def noticed(message: Any) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                started.set()

        await app(scope, receive, noticed if scope["type"] == "lifespan" else send)

    return noticing, started
