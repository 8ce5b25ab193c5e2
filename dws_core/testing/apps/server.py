"""Real servers in the test's own event loop, on free ports of the loopback interface."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from dws_core.testing.apps.app_client import AppClient
from dws_core.testing.faults.faulty_broker import FaultyBroker

_STOP_S = 10.0


class Server(uvicorn.Server):
    """A uvicorn server in the test's event loop, without signal handlers. Use `serve` to create it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that the system chose."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """URL for WebSocket connections, without a path."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        """URL for HTTP requests, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def connect(self, path: str = "/ws", **options: Any) -> AbstractAsyncContextManager[AppClient]:
        """Connect a client, with the options of `AppClient.open`."""
        return AppClient.open(self.url + path, **options)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals, because pytest handles them."""
        yield

    async def startup(self, sockets: Any = None) -> None:
        """Start to listen, and let `start` return."""
        await super().startup(sockets)
        self._listening.set()

    async def start(self) -> None:
        """Serve in the background. Return when the server listens.

        Raises:
            RuntimeError: The application did not start.
        """
        loop = asyncio.get_running_loop()
        task = self._task = loop.create_task(self._run(), name="a server of dws_core.testing")
        listening = loop.create_task(self._listening.wait())
        await asyncio.wait({listening, task}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if task.done():
            raise RuntimeError(
                "the server did not start, probably because the application's lifespan failed. Fix: read the log"
            )

    async def stop(self) -> None:
        """Stop like a deployment does: shut down the application and close its connections. Idempotent."""
        self.should_exit = True
        if self._task is not None:
            async with asyncio.timeout(_STOP_S):
                await asyncio.shield(self._task)

    async def _run(self) -> None:
        with suppress(SystemExit):  # uvicorn raises it if the start failed
            await self.serve()


@asynccontextmanager
async def serve(app: ASGIApp, **settings: Any) -> AsyncIterator[Server]:
    """Serve an application until the block ends.

    Args:
        app: Any ASGI application. Its lifespan runs, and with it that of a manager.
        **settings: Settings of `uvicorn.Config`, for example `ws="dws_core.server:WebSocketProtocol"`.

    Raises:
        RuntimeError: The application did not start.

    Example:
        ```python
        async with serve(app) as server, server.connect("/ws/alice") as alice:
            await alice.subscribe("chat/#")
        ```
    """
    config = {"host": "127.0.0.1", "port": 0, "log_level": "error", "lifespan": "on", **settings}
    server = Server(uvicorn.Config(app, **config))
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningNode:
    """One of several nodes in this process.

    Attributes:
        server: The server of the node's application.
        broker: The node's broker, with faults that affect only this node. All nodes share one log.
    """

    server: Server
    broker: FaultyBroker

    @property
    def url(self) -> str:
        """URL for WebSocket connections, without a path."""
        return self.server.url

    @property
    def http_url(self) -> str:
        """URL for HTTP requests, without a path."""
        return self.server.http_url

    def connect(self, path: str = "/ws", **options: Any) -> AbstractAsyncContextManager[AppClient]:
        """Connect a client to this node, with the options of `AppClient.open`."""
        return self.server.connect(path, **options)


@asynccontextmanager
async def serve_nodes(
    make_app: Callable[[FaultyBroker], ASGIApp], *, count: int = 2, broker_url: str | None = None, **settings: Any
) -> AsyncIterator[list[RunningNode]]:
    """Serve several nodes of one channel in this process.

    Args:
        make_app: Function that builds the application of a node with a broker, which it passes to
            `WebSocketManager("chat", broker=broker)`.
        count: Number of nodes.
        broker_url: URL of the broker that all nodes share. If None, a new log in memory.
        **settings: Settings of `uvicorn.Config`.

    Raises:
        RuntimeError: An application did not start.

    Example:
        ```python
        async with serve_nodes(make_app) as (one, two):
            async with one.connect("/ws/alice") as alice, two.connect("/ws/bob") as bob:
                await bob.subscribe("chat/#")
                await alice.publish("chat/lobby", "hello")
                await bob.assert_received("hello")
        ```
    """
    url = broker_url or f"memory://nodes-{secrets.token_hex(6)}"
    async with AsyncExitStack() as stack:
        nodes = []
        for _ in range(count):
            broker = FaultyBroker(url)
            server = await stack.enter_async_context(serve(make_app(broker), **settings))
            nodes.append(RunningNode(server=server, broker=broker))
        yield nodes
