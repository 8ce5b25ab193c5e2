"""A storm: thousands of clients reconnect at once, each with a cursor and 50 missed messages, during live traffic.

    python benchmarks/storm.py [--quick] [--redis] [--clients 5000] [--missed 50]

The benchmark has three processes. A node runs on one core. A few live subscribers, whose latencies are measured, and
the storm with a lower priority share the other core. Live traffic has three phases. In the *quiet* phase, there is
no storm. In the *resume* phase, all clients send `connect` on sockets that are already open. In the *reconnect* phase,
they also open their sockets and make the handshake. The result is the ratio of the live p99 in each storm to the quiet
p99.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from harness.live import TOPIC, Crowd, Live, cpu_s, masked, raise_file_limit, request, served
from harness.results import keep, parser
from harness.running import Cores

HERE = Path(__file__).parent
ROOM = "bench/room"


# -- the storm: a child process


class StormClient(asyncio.Protocol):
    """A reconnecting client. It parses nothing and only collects bytes until the `pos` frame that ends the replay."""

    def __init__(self, path: str, host: str, hello: bytes) -> None:
        loop = asyncio.get_running_loop()
        key = base64.b64encode(os.urandom(16)).decode()
        self.request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        self.hello = masked(hello)
        self.open: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[bytes] = loop.create_future()
        self.transport: asyncio.Transport | None = None
        self._got = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self.open.done():
            if b"\r\n\r\n" in self._got:
                self.open.set_result(None)
        elif not self.done.done() and b'"type":"pos"' in self._got[-256:]:
            self.done.set_result(bytes(self._got))

    def connection_lost(self, error: Exception | None) -> None:
        for waited in (self.open, self.done):
            if not waited.done():
                waited.set_exception(error or ConnectionError("closed by the node"))
                waited.exception()  # marks the error as retrieved, because some futures are not awaited

    def resume(self) -> None:
        """Send `connect` with the cursor."""
        assert self.transport is not None
        self.transport.write(self.hello)


async def open_client(port: int, number: int, hello: bytes) -> StormClient:
    """Open one socket from one of several addresses, because a single address has too few ports."""
    source = (f"127.0.1.{1 + number % 8}", 0)
    made = lambda: StormClient("/ws", f"127.0.0.1:{port}", hello)  # noqa: E731 -- a factory
    _, client = await asyncio.get_running_loop().create_connection(made, "127.0.0.1", port, local_addr=source)
    await client.open
    return client


async def storm(port: int, count: int, cursor: str, missed: int) -> None:
    """Execute the commands on standard input, one per line. Print a line of JSON after each."""
    hello = json.dumps({"type": "connect", "data": {"filters": [ROOM], "cursor": cursor}}).encode()
    clients = await asyncio.gather(*[open_client(port, n, hello) for n in range(count)])
    loop = asyncio.get_running_loop()
    print(json.dumps({"open": len(clients)}), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline) == "resume\n":
        started = time.perf_counter()
        for client in clients:
            client.resume()
        print(
            json.dumps(check_replays(await wait_for_replays(clients), missed, time.perf_counter() - started)),
            flush=True,
        )
        for client in clients:
            assert client.transport is not None
            client.transport.abort()
    started = time.perf_counter()
    clients = await asyncio.gather(*[open_and_resume(port, n, hello) for n in range(count)])
    print(json.dumps(check_replays(await wait_for_replays(clients), missed, time.perf_counter() - started)), flush=True)


async def open_and_resume(port: int, number: int, hello: bytes) -> StormClient:
    client = await open_client(port, number, hello)
    client.resume()
    return client


async def wait_for_replays(clients: list[StormClient]) -> list[bytes]:
    return list(await asyncio.gather(*[client.done for client in clients]))


def check_replays(got: list[bytes], missed: int, seconds: float) -> dict[str, Any]:
    """Return the number of received messages, and how many clients did not receive exactly what they missed."""
    counts = [found.count(b'"type":"message"') for found in got]
    wrong = sum(count != missed or b'"recovered":true' not in found for count, found in zip(counts, got, strict=True))
    return {"clients": len(got), "messages": sum(counts), "wrong": wrong, "seconds": seconds}


# -- live traffic: this process


async def measure(port: int, pid: int, arguments: argparse.Namespace, cores: Cores) -> dict[str, Any]:
    url = f"ws://127.0.0.1:{port}/ws"
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connect(url, proxy=None)) for _ in range(arguments.subscribers + 1)]
        publisher, *subscribers = sockets
        cursor = (await request(publisher, type="connect", data={"filters": [ROOM]}))["cursor"]
        await request(publisher, type="unsubscribe", topic=ROOM)
        for number in range(arguments.missed):
            await request(publisher, type="send", topic=ROOM, data={"number": number, "text": "x" * 100})
        for socket in subscribers:
            await request(socket, type="subscribe", topic=TOPIC)
        live = Live(subscribers)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(live.read(socket)) for socket in subscribers]
            running.append(group.create_task(live.publish(publisher, arguments.rate)))
            async with Crowd.start(storm_command(port, cursor, arguments), cores) as crowd:
                await crowd.read_reply()
                await asyncio.sleep(0.5)
                live.take_latencies()
                await asyncio.sleep(arguments.seconds)
                found: dict[str, Any] = {"quiet": live.take_latencies()}
                for phase in ("resume", "reconnect"):
                    before = cpu_s(pid)
                    row = await crowd.order(phase)
                    row["server_cpu_s"] = round(cpu_s(pid) - before, 2)
                    found[phase] = {**row, **live.take_latencies()}
                    await asyncio.sleep(1.0)  # until the sockets of the previous phase are closed
                    live.take_latencies()
            for task in running:
                task.cancel()
        return {"cursor_bytes": len(cursor), **found}


def storm_command(port: int, cursor: str, arguments: argparse.Namespace) -> list[str]:
    """Return the arguments of Python for the process of the storm."""
    command = [str(HERE / "storm.py"), "--storm", str(port), "--cursor", cursor]
    return [*command, "--clients", str(arguments.clients), "--missed", str(arguments.missed)]


def run(arguments: argparse.Namespace, cores: Cores) -> dict[str, Any]:
    if not arguments.redis:
        return storm_on("memory://", arguments, cores)
    sys.path.insert(0, str(HERE.parent / "tests"))
    from services.redis import PrivateRedis

    redis = PrivateRedis()
    redis.start()
    try:
        found = storm_on(redis.url, arguments, cores)
        reads = (b"cmdstat_xrange:", b"cmdstat_zrangebyscore:")
        stats = [line for line in redis.command("INFO", "commandstats").splitlines() if line.startswith(reads)]
        return {**found, "history_reads": [line.decode() for line in stats]}
    finally:
        redis.remove()


def storm_on(broker_url: str, arguments: argparse.Namespace, cores: Cores) -> dict[str, Any]:
    """Start a server with a broker, and measure the storm."""
    with served("dws_app", cores, {"BROKER_URL": broker_url}) as (port, pid):
        return asyncio.run(measure(port, pid, arguments, cores))


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that have targets."""
    quiet = found["quiet"]["p99_ms"]
    figures: dict[str, Any] = {"cursor_bytes": found["cursor_bytes"]}
    for phase in ("resume", "reconnect"):
        row = found[phase]
        figures[phase] = {
            "p99_ratio": round(row["p99_ms"] / quiet, 1) if quiet else None,
            "messages_per_s": round(row["messages"] / row["seconds"]),
            "messages_per_cpu_s": round(row["messages"] / row["server_cpu_s"]) if row["server_cpu_s"] else None,
        }
    return figures


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--clients", type=int, default=5000)
    options.add_argument("--missed", type=int, default=50)
    options.add_argument("--subscribers", type=int, default=20)
    options.add_argument("--rate", type=int, default=50, help="live messages per second")
    options.add_argument("--seconds", type=float, default=3.0, help="duration of the quiet phase")
    options.add_argument(
        "--redis", action="store_true", help="use a private Redis and print how often its history was read"
    )
    options.add_argument("--storm", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options.add_argument("--cursor", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.quick:
        arguments.clients, arguments.seconds = min(arguments.clients, 200), min(arguments.seconds, 0.5)
    wanted, arguments.clients = arguments.clients, raise_file_limit(arguments.clients)
    if arguments.storm:
        asyncio.run(storm(arguments.storm, arguments.clients, arguments.cursor, arguments.missed))
        return
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, {cores.client})
    found = run(arguments, cores)
    if wanted != arguments.clients:
        print(f"{arguments.clients} clients instead of {wanted}, because the system allows no more open files")
    for phase in ("quiet", "resume", "reconnect"):
        print(f"{phase:10} {json.dumps(found[phase])}")
    print(json.dumps(summary(found)))
    if arguments.redis:
        print("history reads:", found["history_reads"] or "none")
    if path := keep("storm", {**found, "summary": summary(found)}, arguments, cores):
        print(f"written to {path}")


if __name__ == "__main__":
    main()
