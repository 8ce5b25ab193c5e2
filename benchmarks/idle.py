"""Memory of idle connections: a dws node and plain FastAPI on the same server in the same run.

    python benchmarks/idle.py --connections 10000

Opens the connections to a child process over loopback and prints the growth of its resident memory per connection. The
client uses several loopback addresses, because a single one has too few ports.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, WebSocket

from dws_core import WebSocketManager


def app(kind: str):
    if kind == "plain":
        plain = FastAPI()

        @plain.websocket("/ws")
        async def hold(websocket: WebSocket) -> None:
            await websocket.accept()
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass

        return plain
    manager = WebSocketManager("bench", broker_url="memory://")
    served = FastAPI(lifespan=manager.lifespan)

    @served.websocket("/ws")
    async def serve(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            async for message in connection:
                await manager.receive(connection, message)

    return served


def serve(kind: str) -> None:
    _raise_file_limit()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app(kind), log_level="error", ws_ping_interval=None, ws_per_message_deflate=False)
    uvicorn.Server(config).run(sockets=[listener])


def _raise_file_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def rss_bytes(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def open_all(port: int, count: int) -> list[asyncio.StreamWriter]:
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
    gate = asyncio.Semaphore(200)

    async def one(number: int) -> asyncio.StreamWriter:
        async with gate:
            source = (f"127.0.0.{1 + number % 4}", 0)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=source, limit=1024)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 101 " in head, head
            return writer

    return await asyncio.gather(*[one(n) for n in range(count)])


async def measure(kind: str, count: int) -> dict[str, float]:
    child = subprocess.Popen([sys.executable, __file__, "--serve", kind], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        warm = await open_all(port, 50)
        before = rss_bytes(child.pid)
        start = asyncio.get_running_loop().time()
        writers = await open_all(port, count)
        seconds = asyncio.get_running_loop().time() - start
        grown = rss_bytes(child.pid) - before
        for writer in [*warm, *writers]:
            writer.transport.abort()
        return {"connections": count, "bytes_each": grown / count, "connects_per_s": count / seconds}
    finally:
        child.kill()
        child.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--serve", choices=["plain", "dws"])
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    _raise_file_limit()
    results = {kind: asyncio.run(measure(kind, arguments.connections)) for kind in ("plain", "dws")}
    gc.collect()
    for kind, row in results.items():
        print(f"{kind:6} {row['bytes_each']:9.0f} B/connection {row['connects_per_s']:8.0f} connects/s")
    ours = results["dws"]["bytes_each"] - results["plain"]["bytes_each"]
    ratio = results["dws"]["bytes_each"] / results["plain"]["bytes_each"]
    print(f"dws adds {ours:.0f} B to plain FastAPI, ratio {ratio:.2f}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
