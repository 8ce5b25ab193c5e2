"""Thousands of tokens expire at the same moment, during live traffic.

    python benchmarks/expiry.py [--quick] [--clients 10000] [--rounds 3]

The benchmark has three processes. A node runs on one core. A few live subscribers, whose latencies are measured, and
the clients whose tokens expire, with a lower priority, share the other core. In the *quiet* phase, all connections
are open and idle. Then all clients refresh their tokens, so that they expire at the same moment. The *expiring* phase
lasts from this moment until the node has closed the last connection with 4002. Each round has a new node. The result is
the live p99 in the expiring phase minus the quiet p99.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import statistics
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
CODE = (4002).to_bytes(2, "big")
EXPIRED = CODE + b"token expired"
LEAD_S = 2.0
"""Time between the last refresh and the expiry, if the refreshes are as slow as the handshakes."""
AT_ONCE = 200
"""Number of clients that are in their handshake at the same time."""


# -- the clients whose tokens expire: a child process


class ExpiringClient(asyncio.Protocol):
    """A client that searches the received bytes for the few frames that it waits for, and answers the close frame.

    Attributes:
        opened: Result of the handshake.
        refreshed: Result of the refresh.
        closed: Time of the close frame 4002, in seconds of the monotonic clock.
    """

    def __init__(self, port: int, user: str) -> None:
        loop = asyncio.get_running_loop()
        key = base64.b64encode(os.urandom(16)).decode()
        self.request = (
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {user}\r\n\r\n"
        ).encode()
        self.user = user
        self.opened: asyncio.Future[None] = loop.create_future()
        self.refreshed: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[float] = loop.create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        for future, found in ((self.opened, b"101 Switching"), (self.refreshed, b'"type":"ack"')):
            if not future.done() and found in data:
                future.set_result(None)
        if EXPIRED in data and not self.closed.done():
            self.closed.set_result(time.monotonic())
            self._send(masked(CODE, opcode=8))

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.opened, self.refreshed, self.closed):
            if not future.done():
                future.set_exception(error or ConnectionError("closed by the node"))
                future.exception()  # marks the error as retrieved, because some futures are not awaited

    def refresh(self, expires_at: float) -> None:
        """Send a new token."""
        token = f"{self.user}:{expires_at}"
        self._send(masked(json.dumps({"type": "refresh", "data": {"token": token}, "id": 1}).encode()))

    def _send(self, frame: bytes) -> None:
        assert self._transport is not None
        self._transport.write(frame)


async def open_client(port: int, number: int, turns: asyncio.Semaphore) -> ExpiringClient:
    """Open one socket from one of several addresses, because a single address has too few ports."""
    async with turns:
        made = lambda: ExpiringClient(port, f"user-{number}")  # noqa: E731 -- a factory
        source = (f"127.0.1.{1 + number % 8}", 0)
        _, client = await asyncio.get_running_loop().create_connection(made, "127.0.0.1", port, local_addr=source)
        await client.opened
        return client


async def crowd(port: int, count: int) -> None:
    """Open the connections, then execute the commands on standard input, one per line."""
    turns, began = asyncio.Semaphore(AT_ONCE), time.monotonic()
    clients = await asyncio.gather(*[open_client(port, number, turns) for number in range(count)])
    reply(open=len(clients), seconds=time.monotonic() - began)
    expires_at = float(await asyncio.to_thread(sys.stdin.readline))
    for number, client in enumerate(clients, 1):
        client.refresh(expires_at)
        if number % AT_ONCE == 0:
            await asyncio.gather(*[client.refreshed for client in clients[:number]])
    await asyncio.gather(*[client.refreshed for client in clients])
    reply(refreshed=len(clients), left_s=expires_at - time.time())
    ends = await asyncio.gather(*[client.closed for client in clients], return_exceptions=True)
    closed = [end for end in ends if isinstance(end, float)]
    reply(closed=len(closed), first_s=min(closed, default=0.0), last_s=max(closed, default=0.0))
    await asyncio.to_thread(sys.stdin.readline)


def reply(**values: float) -> None:
    print(json.dumps(values), flush=True)


# -- live traffic: this process


async def measure(port: int, pid: int, arguments: argparse.Namespace, cores: Cores) -> dict[str, Any]:
    """Measure one round on a running node."""
    url, headers = f"ws://127.0.0.1:{port}/ws", {"Authorization": "Bearer live"}
    async with AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(connect(url, proxy=None, additional_headers=headers))
            for _ in range(arguments.subscribers + 1)
        ]
        publisher, *subscribers = sockets
        for socket in subscribers:
            await request(socket, type="subscribe", topic=TOPIC)
        live = Live(subscribers)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(live.read(socket)) for socket in subscribers]
            running.append(group.create_task(live.publish(publisher, arguments.rate)))
            command = [str(HERE / "expiry.py"), "--crowd", str(port), "--clients", str(arguments.clients)]
            async with Crowd.start(command, cores) as clients:
                found = await measure_phases(live, clients, pid, arguments)
            for task in running:
                task.cancel()
    return found


async def measure_phases(live: Live, clients: Crowd, pid: int, arguments: argparse.Namespace) -> dict[str, Any]:
    opening = await clients.read_reply()
    await asyncio.sleep(0.5)
    live.take_latencies()
    await asyncio.sleep(arguments.seconds)
    quiet = live.take_latencies()
    expires_at = time.time() + opening["seconds"] + LEAD_S
    expiry = time.monotonic() + expires_at - time.time()
    refreshing = await clients.order(str(expires_at))
    if refreshing["left_s"] < 0:
        raise RuntimeError("the tokens have expired during the refreshes. Fix: repeat the run on a less busy machine")
    before = cpu_s(pid)
    ending = await clients.read_reply()
    if ending["closed"] < arguments.clients:
        raise RuntimeError(f"only {ending['closed']} connections were closed with 4002. Fix: read the server's output")
    await live.catch_up(ending["last_s"])
    row = {**ending, "first_s": ending["first_s"] - expiry, "last_s": ending["last_s"] - expiry}
    row["server_cpu_s"] = round(cpu_s(pid) - before, 2)
    return {"quiet": quiet, "expiring": {**row, **live.take_latencies(expiry, ending["last_s"])}}


def run(arguments: argparse.Namespace, cores: Cores) -> list[dict[str, Any]]:
    rounds = []
    for _ in range(arguments.rounds):
        with served("expiring_app", cores, {}) as (port, pid):
            rounds.append(asyncio.run(measure(port, pid, arguments, cores)))
        for phase, row in rounds[-1].items():
            print(f"{phase:10} {json.dumps(row)}", flush=True)
    return rounds


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures that have targets: by how much the live p99 rises, for each round and its median."""
    rises = [round(row["expiring"]["p99_ms"] - row["quiet"]["p99_ms"], 1) for row in rounds]
    return {"p99_rise_ms": rises, "median_ms": statistics.median(rises)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--clients", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--subscribers", type=int, default=10)
    options.add_argument("--rate", type=int, default=200, help="live messages per second")
    options.add_argument("--seconds", type=float, default=3.0, help="duration of the quiet phase")
    options.add_argument("--crowd", type=int, metavar="PORT", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.quick:
        arguments.clients, arguments.rounds, arguments.seconds = min(arguments.clients, 200), 1, 0.5
    wanted, arguments.clients = arguments.clients, raise_file_limit(arguments.clients)
    if arguments.crowd:
        asyncio.run(crowd(arguments.crowd, arguments.clients))
        return
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, {cores.client})
    if wanted != arguments.clients:
        print(f"{arguments.clients} clients instead of {wanted}, because the system allows no more open files")
    rounds = run(arguments, cores)
    print(json.dumps(summary(rounds)))
    if path := keep("expiry", {"rounds": rounds, "summary": summary(rounds)}, arguments, cores):
        print(f"written to {path}")


if __name__ == "__main__":
    main()
