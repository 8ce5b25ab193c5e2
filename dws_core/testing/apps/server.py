"""Real servers in the test's own event loop, on free ports of the loopback interface."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

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

    async def assert_refused(self, status: int, path: str = "/ws", **options: Any) -> None:
        """Check that the handshake is refused with this HTTP status, with the options of `AppClient.open`.

        Raises:
            AssertionError: The handshake was accepted, refused with another status, or not answered in time.
        """
        await AppClient.assert_refused(status, self.url + path, **options)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals, because pytest handles them."""
        yield

    async def startup(self, sockets: Any = None) -> None:
        """Start to listen, and let `start` return."""
        await super().startup(sockets)
        self._listening.set()

    async def start(self, *, within_s: float = 30.0) -> None:
        """Serve in the background. Return when the server listens.

        Args:
            within_s: Time for the start of the application's lifespan, in seconds.

        Raises:
            RuntimeError: The application did not start.
            AssertionError: The application did not start in time.
        """
        loop = asyncio.get_running_loop()
        task = self._task = loop.create_task(self._run(), name="a server of dws_core.testing")
        listening = loop.create_task(self._listening.wait())
        await asyncio.wait({listening, task}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if not task.done() and not self._listening.is_set():
            await self._abandon(f"waited {within_s} s for the start of the application's lifespan, which still runs")
        if task.done():
            raise RuntimeError(
                "the server did not start, probably because the application's lifespan failed. Fix: read the log"
            )

    async def stop(self) -> None:
        """Stop like a deployment does: shut down the application and close its connections. Idempotent.

        Raises:
            AssertionError: The application did not stop in time. It is cancelled then.
        """
        self.should_exit = True
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=_STOP_S)
        if self._task.done():
            await self._task
        else:
            handlers = len(self.server_state.tasks)
            rest = f"{handlers} handlers still run" if handlers else "its lifespan has not ended"
            await self._abandon(f"waited {_STOP_S} s for the application to stop, but {rest}")

    async def _abandon(self, failure: str) -> NoReturn:
        """Cancel the server and its handlers, so that the test can end, and raise."""
        running = {*self.server_state.tasks, *filter(self._runs_lifespan, asyncio.all_tasks())}
        if self._task is not None:
            running.add(self._task)
            self._task = None
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_STOP_S)
        raise AssertionError(f"{failure}. Fix: end every wait of the application when it stops")

    def _runs_lifespan(self, task: asyncio.Task[Any]) -> bool:
        """Return whether a task is the one in which uvicorn runs the lifespan of this server's application."""
        frame = getattr(task.get_coro(), "cr_frame", None)
        return frame is not None and "lifespan" in vars(self) and frame.f_locals.get("self") is self.lifespan

    async def _run(self) -> None:
        with suppress(SystemExit):  # uvicorn raises it if the start failed
            await self.serve()


@asynccontextmanager
async def serve(app: ASGIApp, *, start_s: float = 30.0, **settings: Any) -> AsyncIterator[Server]:
    """Serve an application until the block ends.

    Args:
        app: Any ASGI application. Its lifespan runs, and with it that of a manager.
        start_s: Time for the start of the lifespan, in seconds.
        **settings: Settings of `uvicorn.Config`, for example `ws="dws_core.server:WebSocketProtocol"`.

    Raises:
        RuntimeError: The application did not start.
        AssertionError: The application did not start within `start_s` seconds, or did not stop within 10 seconds.

    Example:
        ```python
        async with serve(app) as server, server.connect("/ws/alice") as alice:
            await alice.subscribe("chat/#")
        ```
    """
    config = {"host": "127.0.0.1", "port": 0, "log_level": "error", "lifespan": "on", **settings}
    server = Server(uvicorn.Config(app, **config))
    try:
        await server.start(within_s=start_s)
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

    async def assert_refused(self, status: int, path: str = "/ws", **options: Any) -> None:
        """Check that the handshake is refused with this HTTP status. See `Server.assert_refused`."""
        await self.server.assert_refused(status, path, **options)


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
        **settings: Settings of `uvicorn.Config`, and `start_s` of `serve`.

    Raises:
        RuntimeError: An application did not start.
        AssertionError: An application did not start or stop in time, see `serve`.

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
