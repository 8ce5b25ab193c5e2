"""Real servers without a flag: uvicorn, the FastAPI command and gunicorn send ready frames."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import uvicorn
from support.apps import chat
from support.protocol_pair import App
from support.server_process import ServerProcess
from support.servers import Client, serve
from support.timeouts import HANG_S
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs process groups of POSIX")

APP = """
from fastapi import FastAPI, WebSocket
from dws_core import WebSocketManager

manager = WebSocketManager("auto", "memory://"{arguments})
app = FastAPI(lifespan=manager.lifespan)

@app.websocket("/ws")
async def ready(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        await connection.send_json({{"ready": manager.stats().ready_connections}})
        async for _ in connection:
            pass
"""
PYTHON = [sys.executable, "-m"]
PATIENT = ["--timeout-worker-healthcheck", "300"]
UVICORN = [*PYTHON, "uvicorn", "app:app", "--port", "0"]
STARTED = "Application startup complete"
COMMANDS = {
    "uvicorn": UVICORN,
    "uvicorn --workers": [*UVICORN, "--workers", "2", *PATIENT],
    "uvicorn --reload": [*UVICORN, "--reload"],
    "fastapi run": [*PYTHON, "fastapi", "run", "app.py", "--host", "127.0.0.1", "--port", "0"],
    "fastapi dev": [*PYTHON, "fastapi", "dev", "app.py", "--port", "0"],
    "gunicorn": [
        *PYTHON,
        "gunicorn",
        "app:app",
        "-b",
        "127.0.0.1:0",
        "-k",
        "uvicorn_worker.UvicornWorker",
        "-t",
        "300",
    ],
}


@contextmanager
def running(command: list[str], folder: Path, arguments: str = "") -> Iterator[ServerProcess]:
    (folder / "app.py").write_text(APP.format(arguments=arguments))
    with ServerProcess.open(command, folder, {"NO_COLOR": "1", "COLUMNS": "200"}) as server:
        yield server


async def ready_connections(server: ServerProcess) -> int:
    """Connect, and return how many connections of the worker take ready frames."""
    address = await asyncio.to_thread(lambda: server.address)
    async with asyncio.timeout(HANG_S), await until_listening(f"ws://{address}/ws") as client:
        found: int = (await client.receive())["ready"]
        return found


async def until_listening(url: str) -> AbstractAsyncContextManager[Client]:
    """Return a client as soon as a worker listens, which is after it has printed that it started."""
    host, _, port = url.removeprefix("ws://").partition("/")[0].partition(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return Client.open(url)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
async def test_server_without_flag_sends_ready_frames(command: list[str], tmp_path: Path) -> None:
    with running(command, tmp_path) as server:
        await asyncio.to_thread(server.printed, STARTED)
        assert await ready_connections(server) == 1


async def test_reloaded_server_sends_ready_frames(tmp_path: Path) -> None:
    with running(COMMANDS["uvicorn --reload"], tmp_path) as server:
        await asyncio.to_thread(server.printed, STARTED)
        (tmp_path / "app.py").write_text(APP.format(arguments="") + "\n")
        await asyncio.to_thread(server.printed, STARTED, 2)
        assert await ready_connections(server) == 1


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_explicit_ws_option_is_respected(ws: str, tmp_path: Path) -> None:
    with running([*UVICORN, "--ws", ws], tmp_path) as server:
        await asyncio.to_thread(server.printed, STARTED)
        assert await ready_connections(server) == 0


async def test_switch_keeps_protocol_class_of_uvicorn(tmp_path: Path) -> None:
    with running(UVICORN, tmp_path, ", adapt_server=False") as server:
        await asyncio.to_thread(server.printed, STARTED)
        assert await ready_connections(server) == 0


async def test_manager_started_in_child_task_sends_ready_frames() -> None:
    """Some lifespans start their parts in a task group."""
    manager, app = chat()

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            group.create_task(manager.startup())
        yield
        await manager.shutdown()

    app.router.lifespan_context = lifespan
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        await client.subscribe("t")
        assert manager.stats().ready_connections == 1


async def test_two_servers_on_one_loop_keep_their_own_class() -> None:
    """Each manager finds the server that runs its lifespan."""
    manager, app = chat()
    other, plain = chat()
    async with serve(app) as ours, serve(plain, ws="websockets-sansio") as theirs:
        async with Client.open(f"{ours.url}/ws/a") as a, Client.open(f"{theirs.url}/ws/b") as b:
            await asyncio.wait_for(asyncio.gather(a.subscribe("t"), b.subscribe("t")), HANG_S)
            assert (manager.stats().ready_connections, other.stats().ready_connections) == (1, 0)


def test_uvicorn_has_the_parts_that_the_switch_needs() -> None:
    """If this fails, a new uvicorn changed what `dws_core._uvicorn` relies on."""
    assert inspect.iscoroutinefunction(LifespanOn.main), "the lifespan no longer runs in LifespanOn.main"
    config = uvicorn.Config(App(), ws="auto")
    config.load()
    assert config.ws_protocol_class is AutoWebSocketsProtocol, "uvicorn chooses another class for --ws auto"
    assert config.http_protocol_class is AutoHTTPProtocol, "uvicorn chooses another class for --http auto"
    assert LifespanOn(config).config is config, "LifespanOn no longer holds the Config"
