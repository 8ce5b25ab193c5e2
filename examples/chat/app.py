"""A chat on two nodes: `nox -s demo`, or `python examples/chat/app.py`.

Two FastAPI applications, each with its own node, share one memory broker in this process. Open both printed addresses.
Every message that you write on one node appears on the other. Type `a` or `b` to stop or start a node. Its browsers
reconnect to the other node and miss nothing. `--check` runs a scripted exchange over real sockets and exits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse
from websockets.asyncio.client import ClientConnection, connect

from dws_core import WebSocketManager

PAGE = Path(__file__).with_name("page.html")
BROKER_URL = "memory://demo"


def create_app(node: str, others: Mapping[str, str]) -> FastAPI:
    """Build the application of one node: a page, and the WebSocket endpoint that it uses.

    Args:
        node: Name of the node.
        others: Names and addresses of the other nodes. Their pages connect to this node after theirs has stopped.
    """
    origins = [f"http://{host}" for host in others.values()]
    manager = WebSocketManager("chat", broker_url=BROKER_URL, allowed_origins=origins)
    app = FastAPI(title=f"Chat, node {node}", lifespan=manager.lifespan)

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        other_nodes = json.dumps([{"name": name, "host": host} for name, host in others.items()])
        return PAGE.read_text(encoding="utf-8").replace("{{node}}", node).replace("{{others}}", other_nodes)

    @app.websocket("/ws")
    async def chat(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:  # the node assigns a random connection id
            async for message in connection:
                await manager.receive(connection, message)

    return app


class PortUnavailableError(Exception):
    """A port cannot be used, mostly because another program listens on it."""


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise PortUnavailableError(
            f"port {port} cannot be used: {os.strerror(error.errno or 0)}. Fix: choose another port with --port"
        ) from error


class Server(uvicorn.Server):
    """A uvicorn server without signal handlers, because two servers share the process. `run` handles the signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port


@asynccontextmanager
async def serve(node: str, port: int, **others: str) -> AsyncIterator[Server]:
    """Serve one node until the block ends. Port 0 selects a free port. See `create_app` for `others`.

    Raises:
        PortUnavailableError: The port cannot be used.
    """
    listening = listen(port)
    server = Server(
        uvicorn.Config(create_app(node, others), log_level="warning", ws="dws_core.server:WebSocketProtocol")
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.serve(sockets=[listening]))
        while not server.started:
            if task.done():
                raise RuntimeError(f"node {node} cannot start")
            await asyncio.sleep(0.01)
        try:
            yield server
        finally:
            server.should_exit = True


async def run(port: int) -> None:
    """Serve both nodes until Ctrl-C.

    Raises:
        PortUnavailableError: One of the ports cannot be used.
    """
    for number in (port, port + 1):
        listen(number).close()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    a, b = f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"
    nodes = {"a": NodeSwitch(lambda: serve("A", port, B=b)), "b": NodeSwitch(lambda: serve("B", port + 1, A=a))}
    async with asyncio.TaskGroup() as group:
        for node in nodes.values():
            group.create_task(node.run())
        for node in nodes.values():
            await node.up.wait()
        print(f"Two nodes, one chat. Open both:\n  node A  http://{a}/\n  node B  http://{b}/", flush=True)
        print("Type a or b and Enter to stop or start a node. Press Ctrl-C to stop both.", flush=True)
        with suppress(OSError, ValueError):  # without a terminal, nodes cannot be stopped by typing
            loop.add_reader(sys.stdin, lambda: toggle_typed_node(nodes))
        await stop.wait()
        for node in nodes.values():
            node.stop()


class NodeSwitch:
    """Stops and starts a node.

    Args:
        serve: Serves the node until the block ends.
    """

    def __init__(self, serve: Callable[[], AbstractAsyncContextManager[Server]]) -> None:
        self.up = asyncio.Event()
        self._serve = serve
        self._wanted = True
        self._stopped = False
        self._changed = asyncio.Event()

    def toggle(self) -> str:
        """Stop the node, or start it again. Return `stops` or `starts`."""
        self._wanted = not self._wanted
        self._changed.set()
        return "starts" if self._wanted else "stops"

    def stop(self) -> None:
        """Stop the node for good."""
        self._stopped = True
        self._changed.set()

    async def run(self) -> None:
        """Serve the node whenever it is switched on, until `stop`."""
        while not self._stopped:
            if self._wanted:
                async with self._serve():
                    self.up.set()
                    await self._next_change()
            else:
                await self._next_change()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def toggle_typed_node(nodes: Mapping[str, NodeSwitch]) -> None:
    """Read a line and stop or start the node that it names."""
    line = sys.stdin.readline()
    if not line:  # the end of the input
        asyncio.get_running_loop().remove_reader(sys.stdin)
    elif (name := line.strip().lower()) in nodes:
        print(f"node {name.upper()} {nodes[name].toggle()}", flush=True)


# -- the scripted exchange


async def request(client: ClientConnection, **message: Any) -> dict[str, Any]:
    """Send a message and return the next received one."""
    await client.send(json.dumps(message))
    return await receive(client)


async def receive(client: ClientConnection) -> dict[str, Any]:
    """Return the next received message."""
    message: dict[str, Any] = json.loads(await client.recv())
    return message


async def check() -> None:
    """Exchange messages between two clients on two nodes. Raise if a result is wrong."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(serve(name, 0)) for name in "AB"]
        urls = [f"ws://127.0.0.1:{node.port}/ws" for node in nodes]
        ann, bo = [await stack.enter_async_context(connect(url, proxy=None)) for url in urls]
        for name, client in (("Ann on A", ann), ("Bo on B", bo)):
            reply = await request(client, type="subscribe", topic="chat/lobby", id=1)
            expect(reply["type"] == "ack", f"{name} joins the lobby", reply)
        for sender, text in ((ann, "Hello from A"), (bo, "Hello from B")):
            data = {"name": "someone", "text": text}
            await sender.send(json.dumps({"type": "send", "topic": "chat/lobby", "data": data}))
            for reader in (ann, bo):
                got = await receive(reader)
                expect((got["topic"], got["data"]) == ("chat/lobby", data), f"both nodes deliver {text!r}", got)
        cy = await stack.enter_async_context(connect(urls[1], proxy=None))
        frames = [await request(cy, type="subscribe", topic="chat/lobby", last=50, id=1)]
        while frames[-1]["type"] != "replayed":
            frames.append(await receive(cy))
        past = [frame["data"]["text"] for frame in frames if frame["type"] == "message"]
        expect(past == ["Hello from A", "Hello from B"], "Cy on B opens the lobby with its past", frames)
        reply = await request(bo, type="send", topic="chat/#", data=1, id=2)
        expect(reply.get("code") == "invalid-topic", "a wildcard in a topic is refused", reply)


def expect(passed: bool, step: str, got: object) -> None:
    """Print a successful step, or raise for a failed one."""
    if not passed:
        raise RuntimeError(f"{step}: failed, got {got!r}")
    print(f"ok  {step}", flush=True)


def port_number(text: str) -> int:
    """Return a port whose next port exists too."""
    if not text.isdecimal() or not 0 < int(text) < 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65534")
    return int(text)


def serve_until_interrupted(port: int) -> int:
    """Serve both nodes until Ctrl-C, and return the exit code."""
    try:
        asyncio.run(run(port))
    except PortUnavailableError as error:
        print(f"FAILED  {error}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--port", type=port_number, default=8001, help="port of node A, from 1 to 65534. Node B uses the next port"
    )
    parser.add_argument("--check", action="store_true", help="run a scripted exchange and exit")
    arguments = parser.parse_args()
    try:
        if not arguments.check:
            return serve_until_interrupted(arguments.port)
        asyncio.run(asyncio.wait_for(check(), 30))
    except KeyboardInterrupt:  # before `run` handles the signal, or in the scripted exchange
        return 130
    except Exception as error:  # noqa: BLE001 -- prints any failure and exits with 1
        print(f"FAILED  {error!r}")
        return 1
    print("The demo works.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
