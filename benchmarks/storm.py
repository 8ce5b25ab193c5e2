"""A storm: thousands of clients come back at once, each with a cursor and 50 missed messages, while live traffic goes on.

    python benchmarks/storm.py [--quick] [--redis] [--clients 5000] [--missed 50]

Three processes: a node on one core; on the other a few live subscribers, whose latencies are measured, and, at the lowest
priority beside them, the storm. Three phases of live traffic: quiet; *resume*, all clients send `connect` on sockets that
are open already; *reconnect*, they open their sockets and shake hands in the storm, too. Two ratios of the live p99 to the
quiet one say what the others feel of it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from harness.results import keep, parser
from harness.running import Cores

HERE = Path(__file__).parent
LIVE, ROOM = "bench/live", "bench/room"
OURS = "dws_core.server:WebSocketProtocol"
PATIENCE_S = 120.0
PORTS_OF_AN_ADDRESS = 20_000


def raise_file_limit(count: int) -> int:
    """Allow as many open files as the system does; return how many clients fit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(count, hard - 200)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- the storm: a child process


class Returning(asyncio.Protocol):
    """One client that comes back. It does not parse: it counts deliveries until the `pos` that ends the replay."""

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
                waited.exception()  # the one who awaits is told; one who does not is not reported

    def resume(self) -> None:
        """Send `connect` with the cursor."""
        assert self.transport is not None
        self.transport.write(self.hello)


def masked(payload: bytes) -> bytes:
    """Return a text frame with a mask of zeros (RFC 6455 §5.2)."""
    length = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload


async def opened(port: int, number: int, hello: bytes) -> Returning:
    """Open one socket, from one of several addresses: one alone has too few ports."""
    source = (f"127.0.1.{1 + number % 8}", 0)
    made = lambda: Returning("/ws", f"127.0.0.1:{port}", hello)  # noqa: E731 -- a factory
    _, client = await asyncio.get_running_loop().create_connection(made, "127.0.0.1", port, local_addr=source)
    await client.open
    return client


async def storm(port: int, count: int, cursor: str, missed: int) -> None:
    """Wait for commands on the standard input, one a line; answer each by a line of JSON."""
    hello = json.dumps({"type": "connect", "data": {"filters": [ROOM], "cursor": cursor}}).encode()
    clients = await asyncio.gather(*[opened(port, n, hello) for n in range(count)])
    loop = asyncio.get_running_loop()
    print(json.dumps({"open": len(clients)}), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline) == "resume\n":
        started = time.perf_counter()
        for client in clients:
            client.resume()
        print(json.dumps(judged(await finished(clients), missed, time.perf_counter() - started)), flush=True)
        for client in clients:
            assert client.transport is not None
            client.transport.abort()
    started = time.perf_counter()
    clients = await asyncio.gather(*[returning(port, n, hello) for n in range(count)])
    print(json.dumps(judged(await finished(clients), missed, time.perf_counter() - started)), flush=True)


async def returning(port: int, number: int, hello: bytes) -> Returning:
    client = await opened(port, number, hello)
    client.resume()
    return client


async def finished(clients: list[Returning]) -> list[bytes]:
    return list(await asyncio.gather(*[client.done for client in clients]))


def judged(got: list[bytes], missed: int, seconds: float) -> dict[str, Any]:
    """Return what came, and how many clients did not get exactly what they had missed."""
    counts = [found.count(b'"type":"message"') for found in got]
    wrong = sum(count != missed or b'"recovered":true' not in found for count, found in zip(counts, got, strict=True))
    return {"clients": len(got), "messages": sum(counts), "wrong": wrong, "seconds": seconds}


# -- live traffic: this process


@dataclass
class Live:
    """Subscribers of a busy topic, and the latencies of what they get."""

    subscribers: list[ClientConnection]
    latencies_ms: list[float] = field(default_factory=list)

    async def read(self, socket: ClientConnection) -> None:
        """Note how old each message is."""
        async for text in socket:
            frame = json.loads(text)
            if frame["type"] == "message":
                self.latencies_ms.append((time.monotonic_ns() - frame["data"]) / 1e6)

    async def publish(self, socket: ClientConnection, rate: int) -> None:
        """Publish at a rate; a message that leaves late counts as late: its time is when it was due."""
        due = time.monotonic()
        while True:
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await socket.send(json.dumps({"type": "send", "topic": LIVE, "data": int(due * 1e9)}))

    def taken(self) -> dict[str, float]:
        """Return what was measured since the last time."""
        found, self.latencies_ms = sorted(self.latencies_ms), []
        if not found:
            return {"deliveries": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
        at = lambda share: round(found[min(len(found) - 1, int(share * len(found)))], 3)  # noqa: E731 -- three times
        return {"deliveries": len(found), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)}


async def ask(socket: ClientConnection, **message: Any) -> Any:
    await socket.send(json.dumps({**message, "id": 1}))
    return json.loads(await socket.recv())


async def measure(port: int, pid: int, arguments: argparse.Namespace, cores: Cores) -> dict[str, Any]:
    url = f"ws://127.0.0.1:{port}/ws"
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connect(url, proxy=None)) for _ in range(arguments.subscribers + 1)]
        publisher, *subscribers = sockets
        cursor = (await ask(publisher, type="connect", data={"filters": [ROOM]}))["cursor"]
        await ask(publisher, type="unsubscribe", topic=ROOM)
        for number in range(arguments.missed):
            await ask(publisher, type="send", topic=ROOM, data={"number": number, "text": "x" * 100})
        for socket in subscribers:
            await ask(socket, type="subscribe", topic=LIVE)
        live = Live(subscribers)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(live.read(socket)) for socket in subscribers]
            running.append(group.create_task(live.publish(publisher, arguments.rate)))
            async with child(port, cursor, arguments, cores) as storming:
                await answer(storming)
                await asyncio.sleep(0.5)
                live.taken()
                await asyncio.sleep(arguments.seconds)
                found: dict[str, Any] = {"quiet": live.taken()}
                for phase in ("resume", "reconnect"):
                    before = cpu_s(pid)
                    assert storming.stdin is not None
                    storming.stdin.write(f"{phase}\n".encode())
                    row = await answer(storming)
                    row["server_cpu_s"] = round(cpu_s(pid) - before, 2)
                    found[phase] = {**row, **live.taken()}
                    await asyncio.sleep(1.0)  # the sockets of the phase before are cleared away
                    live.taken()
            for task in running:
                task.cancel()
        return {"cursor_bytes": len(cursor), **found}


@asynccontextmanager
async def child(
    port: int, cursor: str, arguments: argparse.Namespace, cores: Cores
) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [str(HERE / "storm.py"), "--storm", str(port), "--cursor", cursor]
    options = ["--clients", str(arguments.clients), "--missed", str(arguments.missed)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, *options, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    os.sched_setaffinity(process.pid, {cores.client})
    os.setpriority(os.PRIO_PROCESS, process.pid, 19)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError("the storm ended; see its output")
    found: dict[str, Any] = json.loads(line)
    return found


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
    """Serve on a broker, and let the storm come."""
    command = [sys.executable, str(HERE / "servers/serve.py"), "dws_app", "--ws", OURS]
    environment = {**os.environ, "BROKER_URL": broker_url}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        os.sched_setaffinity(server.pid, {cores.server})
        try:
            assert server.stdout is not None
            return asyncio.run(measure(int(server.stdout.readline()), server.pid, arguments, cores))
        finally:
            server.kill()


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that are to be reached."""
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
    options.add_argument("--rate", type=int, default=50, help="live messages a second")
    options.add_argument("--seconds", type=float, default=3.0, help="of the quiet phase")
    options.add_argument("--redis", action="store_true", help="on a private Redis; says how often its history was read")
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
        print(f"{arguments.clients} clients instead of {wanted}: the system allows no more open files")
    for phase in ("quiet", "resume", "reconnect"):
        print(f"{phase:10} {json.dumps(found[phase])}")
    print(json.dumps(summary(found)))
    if arguments.redis:
        print("history reads:", found["history_reads"] or "none")
    if path := keep("storm", {**found, "summary": summary(found)}, arguments, cores):
        print(f"written to {path}")


if __name__ == "__main__":
    main()
