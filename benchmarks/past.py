"""Opening a room: CPU time of `subscribe` with `last: 50` and of `history` with `limit: 50`, on one node in one run.

    python benchmarks/past.py [--quick] [--rooms 200] [--rounds 7] [--last 50]

A child process serves rooms with 60 messages each in the node's memory. A client opens all rooms, one after the other,
in rounds that alternate between the two requests. Each round uses a new connection. The figure is the CPU time of the
server for one room, as the kernel measures it. The best round of each kind counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection, connect

from dws_core import Limits, WebSocketManager

GOAL = 1.5
SIZES = (100, 1_000)
LIMITS = Limits(messages_per_s=None, filters=None, pos_interval_s=3_600)


def serve() -> None:
    manager = WebSocketManager("bench", broker_url="memory://", limits=LIMITS)
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/ws")
    async def chat(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            async for message in connection:
                await manager.receive(connection, message)

    @app.websocket("/fill/{size}/{rooms}")
    async def fill(websocket: WebSocket, size: int, rooms: int) -> None:
        await websocket.accept()
        for room in range(rooms):
            for number in range(60):
                await manager.publish(f"{size}/{room}", {"text": "x" * size, "number": number})
        await websocket.send_text("filled")

    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_level="error", ws="dws_core.server:WebSocketProtocol")
    uvicorn.Server(config).run(sockets=[listener])


def cpu_s(pid: int) -> float:
    """Return the CPU time of the only busy thread of a process, which the kernel measures in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


async def history(client: ClientConnection, topic: str, last: int) -> int:
    await client.send(json.dumps({"type": "history", "topic": topic, "limit": last, "id": 1}))
    return len(json.loads(await client.recv())["messages"])


async def subscribe(client: ClientConnection, topic: str, last: int) -> int:
    await client.send(json.dumps({"type": "subscribe", "topic": topic, "last": last, "id": 1}))
    messages = 0
    while '"type":"replayed"' not in (frame := str(await client.recv())):
        messages += '"replay":1' in frame
    return messages


KINDS: dict[str, Callable[[ClientConnection, str, int], Awaitable[int]]] = {"history": history, "subscribe": subscribe}


async def measure(pid: int, url: str, size: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the CPU time of one request of each kind, in microseconds."""
    best = dict.fromkeys(KINDS, float("inf"))
    for _ in range(options.rounds):
        async with connect(f"{url}/fill/{size}/{options.rooms}", proxy=None) as filling:
            await filling.recv()
        for name, ask in KINDS.items():
            async with connect(f"{url}/ws", proxy=None, compression=None) as client:
                await ask(client, f"{size}/0", options.last)
                before = cpu_s(pid)
                for room in range(1, options.rooms):
                    if (got := await ask(client, f"{size}/{room}", options.last)) != options.last:
                        raise RuntimeError(f"{name} returned {got} messages instead of {options.last}")
                best[name] = min(best[name], (cpu_s(pid) - before) / (options.rooms - 1) * 1e6)
    return best


async def run(pid: int, url: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        found = await measure(pid, url, size, options)
        ratio = found["subscribe"] / found["history"]
        rows[f"{size} bytes"] = {**{f"{name}_us": round(value) for name, value in found.items()}, "ratio": ratio}
        print(
            f"{size:5} bytes: history {found['history']:5.0f} us, subscribe {found['subscribe']:5.0f} us, "
            f"ratio {ratio:.2f} ({'yes' if ratio <= GOAL else 'no'}, at most {GOAL})"
        )
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--quick", action="store_true", help="few requests, to see that the benchmark runs")
    options.add_argument("--rooms", type=int, default=200)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--last", type=int, default=50)
    options.add_argument("--json", type=Path)
    arguments = options.parse_args()
    if arguments.serve:
        serve()
        return
    if arguments.quick:
        arguments.rooms, arguments.rounds = 10, 1
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline()) if server.stdout else 0
            rows = asyncio.run(run(server.pid, f"ws://127.0.0.1:{port}", arguments))
        finally:
            server.terminate()
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2))


if __name__ == "__main__":
    main()
