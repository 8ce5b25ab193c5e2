"""Opening a room: CPU time of `subscribe` with `last: 50` and of `history` with `limit: 50`, on one node in one run.

    python benchmarks/past.py [--quick] [--rooms 200] [--rounds 7] [--last 50]

A child process serves rooms with 60 messages each in the node's memory. A client opens all rooms, one after the other,
in rounds that alternate between the two requests. Each round uses a new connection. The client parses nothing: a parser
of 50 frames would empty the caches of the processor between two requests. The figure is the CPU time of the server for
one room, as the kernel measures it. The best round of each kind counts.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import uvicorn
from fastapi import FastAPI, WebSocket

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


class RawClient:
    """A connection that parses nothing, so that the caches of the processor belong to the server."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.receive(b"\r\n\r\n", b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, kind: str, topic: str, last: int) -> int:
        """Send a request, and return the number of messages that the reply contains."""
        member, end = KINDS[kind]
        payload = json.dumps({"type": kind, "topic": topic, member: last, "id": 1}).encode()
        self._socket.sendall(b"\x81" + bytes((0x80 | len(payload),)) + bytes(4) + payload)  # with a mask of zeros
        return self.receive(end, b'"}').count(b'"pos":')

    def receive(self, mark: bytes, end: bytes) -> bytes:
        """Return all bytes until some that contain a mark and an end."""
        got = bytearray()
        while not (mark in got[-256:] and got.endswith(end)):
            if not (data := self._socket.recv(262_144)):
                raise ConnectionError(f"closed by the node after {bytes(got)!r}")
            got += data
        return bytes(got)


KINDS = {"history": ("limit", b'],"cursor":"'), "subscribe": ("last", b'"type":"replayed"')}
"""The number's member in the request, and what the end of the reply contains."""


def measure(pid: int, port: int, size: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the CPU time of one request of each kind, in microseconds."""
    best = dict.fromkeys(KINDS, float("inf"))
    for _ in range(options.rounds):
        with RawClient(port, f"/fill/{size}/{options.rooms}") as filling:
            filling.receive(b"filled", b"d")
        for kind in KINDS:
            with RawClient(port, "/ws") as client:
                client.ask(kind, f"{size}/0", options.last)
                before = cpu_s(pid)
                for room in range(1, options.rooms):
                    if (got := client.ask(kind, f"{size}/{room}", options.last)) != options.last:
                        raise RuntimeError(f"{kind} returned {got} messages instead of {options.last}")
                best[kind] = min(best[kind], (cpu_s(pid) - before) / (options.rooms - 1) * 1e6)
    return best


def run(pid: int, port: int, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        found = measure(pid, port, size, options)
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
            rows = run(server.pid, port, arguments)
        finally:
            server.terminate()
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2))


if __name__ == "__main__":
    main()
