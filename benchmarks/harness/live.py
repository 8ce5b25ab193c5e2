"""Live traffic whose latencies are measured while thousands of other clients keep the server busy."""

from __future__ import annotations

import asyncio
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection

from harness.running import Cores

TOPIC = "bench/live"
OURS = "dws_core.server:WebSocketProtocol"
_SERVE = Path(__file__).parents[1] / "servers" / "serve.py"
_TIMEOUT_S = 120.0


def raise_file_limit(count: int) -> int:
    """Raise the limit of open files to the system's maximum. Return how many clients are possible."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(count, hard - 200)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def masked(payload: bytes, opcode: int = 1) -> bytes:
    """Return a frame with a mask of zeros (RFC 6455 §5.2)."""
    length = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes((0x80 | opcode,)) + length + bytes(4) + payload


@dataclass
class Live:
    """Subscribers of a busy topic, and the latencies of their messages.

    Attributes:
        latencies: For each delivery, the time when its message was due, in seconds of the monotonic clock, and its
            latency in milliseconds.
    """

    subscribers: list[ClientConnection]
    latencies: list[tuple[float, float]] = field(default_factory=list)
    _seen_s: dict[ClientConnection, float] = field(default_factory=dict)

    async def read(self, socket: ClientConnection) -> None:
        """Record the latency of each message."""
        async for text in socket:
            frame = json.loads(text)
            if frame["type"] == "message":
                due = self._seen_s[socket] = frame["data"] / 1e9
                self.latencies.append((due, (time.monotonic_ns() - frame["data"]) / 1e6))

    async def publish(self, socket: ClientConnection, rate: int) -> None:
        """Publish at a rate. Each message contains the time when it was due, so that a late publish adds to latency."""
        due = time.monotonic()
        while True:
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await socket.send(json.dumps({"type": "send", "topic": TOPIC, "data": int(due * 1e9)}))

    async def catch_up(self, until: float) -> None:
        """Wait until every subscriber has received the messages that were due before a time."""
        async with asyncio.timeout(_TIMEOUT_S):
            while min(self._seen_s.get(socket, 0.0) for socket in self.subscribers) < until:
                await asyncio.sleep(0.05)

    def take_latencies(self, since: float = -math.inf, until: float = math.inf) -> dict[str, float]:
        """Return the latencies since the last call, of messages that were due between two times."""
        found = sorted(latency for due, latency in self.latencies if since <= due < until)
        self.latencies = []
        if not found:
            return {"deliveries": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
        at = lambda share: round(found[min(len(found) - 1, int(share * len(found)))], 3)  # noqa: E731 -- used 3 times
        return {"deliveries": len(found), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)}


async def request(socket: ClientConnection, **message: Any) -> Any:
    """Send a message, and return the next one."""
    await socket.send(json.dumps({**message, "id": 1}))
    return json.loads(await socket.recv())


@contextmanager
def served(app: str, cores: Cores, environment: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Serve an application of the folder `servers` on the server's core. Yield its port and its process id.

    It sends no pings, because simple clients do not answer them.
    """
    command = [sys.executable, str(_SERVE), app, "--ws", OURS, "--no-pings"]
    environment = {**os.environ, **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        os.sched_setaffinity(server.pid, {cores.server})
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline()), server.pid
        finally:
            server.kill()


class Crowd:
    """The process of the other clients. It executes one command per line, and prints a line of JSON after each."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def start(cls, command: list[str], cores: Cores) -> AsyncIterator[Crowd]:
        """Start a Python program on the client's core, with a lower priority than this process."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        os.sched_setaffinity(process.pid, {cores.client})
        os.setpriority(os.PRIO_PROCESS, process.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10))
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def order(self, command: str) -> dict[str, Any]:
        """Send a command, and return the reply."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        return await self.read_reply()

    async def read_reply(self) -> dict[str, Any]:
        """Return the next reply.

        Raises:
            RuntimeError: The process has ended.
        """
        assert self._process.stdout is not None
        async with asyncio.timeout(_TIMEOUT_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the clients ended early. Fix: read its output")
        found: dict[str, Any] = json.loads(line)
        return found
