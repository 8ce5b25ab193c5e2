"""Back-pressure: the sender must stop, and continue as soon as the reader reads again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from support.proxies import (
    Upstream,
    behind_gateway,
    echo,
    flood,
    open_client,
    url_of,
)
from support.servers import HANG_S
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

CHUNK = 65_536
BOUND = 128 * 1_048_576
"""More than the socket buffers of both connections can hold, and far less than a flood sends in that time."""


@asynccontextmanager
async def _round_trip() -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Yield a function that gives the event loop time, by a message to a separate server and back."""
    async with serve_websockets(echo, "127.0.0.1", 0) as server, open_client(url_of(server)) as client:

        async def there_and_back() -> None:
            await client.send("")
            await client.recv()

        yield there_and_back


async def _standstill(count: Callable[[], int]) -> int:
    """Wait until a count does not change for many round trips, and return it."""
    async with asyncio.timeout(HANG_S), _round_trip() as there_and_back:
        last, still = -1, 0
        while still < 50:
            await there_and_back()
            still = still + 1 if count() == last else 0
            last = count()
            assert last * CHUNK < BOUND, "the sender never comes to a stand"
    return last


async def test_client_that_stops_reading_blocks_upstream() -> None:
    sent = 0

    async def flood(socket: ServerConnection) -> None:
        nonlocal sent
        while True:
            await socket.send(sent.to_bytes(8) + bytes(CHUNK))
            sent += 1

    upstream = Upstream(flood)
    async with behind_gateway(upstream) as (url, front):
        async with open_client(url) as client:
            stood = await _standstill(lambda: sent)
            for number in range(stood + 2):  # the last ones were not sent at the standstill
                message = await client.recv()
                assert isinstance(message, bytes)
                assert int.from_bytes(message[:8]) == number
        await front.wait_ended()


async def test_upstream_that_stops_reading_blocks_client() -> None:
    sent, read = 0, asyncio.Event()
    got: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def dawdle(socket: ServerConnection) -> None:
        await read.wait()
        async for message in socket:
            got.put_nowait(message)

    async def flood(client: ClientConnection) -> None:
        nonlocal sent
        while True:
            await client.send(sent.to_bytes(8) + bytes(CHUNK))
            sent += 1

    async with behind_gateway(dawdle) as (url, front):
        client = await open_client(url)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(flood(client))
            stood = await _standstill(lambda: sent)
            read.set()
            for number in range(stood + 2):
                message = await got.get()
                assert isinstance(message, bytes)
                assert int.from_bytes(message[:8]) == number
            sending.cancel()
        client.transport.abort()
        await front.wait_ended()
        await client.wait_closed()


async def test_client_that_never_reads_again_is_closed() -> None:
    upstream = Upstream(flood)
    async with behind_gateway(upstream, gateway={"stall_timeout_s": 0.2, "close_timeout_s": 0.2}) as (url, front):
        client = await open_client(url)
        assert await upstream.close() == Close(1001, "the client stopped reading")
        await front.wait_ended()
        client.transport.abort()
        await client.wait_closed()
    assert front.failure is None


async def test_upstream_that_never_reads_again_is_closed() -> None:
    release = asyncio.Event()

    async def deaf(socket: ServerConnection) -> None:
        await release.wait()
        socket.transport.abort()

    async with behind_gateway(deaf, gateway={"stall_timeout_s": 0.2, "close_timeout_s": 0.2}) as (url, front):
        async with open_client(url) as client:
            with pytest.raises(ConnectionClosed):
                await flood(client)
            assert (client.close_code, client.close_reason) == (1013, "the upstream stopped reading")
            await front.wait_ended()
            release.set()
