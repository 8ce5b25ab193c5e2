"""Messages and subprotocols through the proxy."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.proxies import (
    Upstream,
    behind_gateway,
    closed_with,
    echo,
    open_client,
    refused_handshake,
)
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.frames import Close
from websockets.typing import Subprotocol


@pytest.mark.parametrize("accept", [True, False])
async def test_messages_of_all_sizes_round_trip(accept: bool) -> None:
    """The messages are text or binary."""
    dice = random.Random(7)
    messages: list[str | bytes] = []
    for size in [0, 0, 1, 125, 126, 65_535, 65_536, 524_288, *(dice.randrange(300) for _ in range(100))]:
        messages.append("ü" * (size // 2) if dice.random() < 0.5 else dice.randbytes(size))

    async with behind_gateway(echo, gateway={"accept": accept}) as (url, _), open_client(url) as client:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send_all(client, messages))
            received = [await client.recv() for _ in messages]
        assert sending.done()
    assert received == messages


async def _send_all(client: ClientConnection, messages: list[str | bytes]) -> None:
    for message in messages:
        await client.send(message)


async def test_fragmented_message_is_joined_both_ways() -> None:
    async def answer(socket: ServerConnection) -> None:
        assert await socket.recv() == "one two"
        await socket.send(["th", "re", "", "e"])
        assert await socket.recv() == b"12"
        await socket.send([b"3", b"4"])

    async with behind_gateway(answer) as (url, _), open_client(url) as client:
        await client.send(["one ", "two"])
        assert await client.recv() == "three"
        await client.send([b"1", b"2"])
        assert await client.recv() == b"34"


async def test_messages_before_upstream_close_arrive() -> None:
    async def talk(socket: ServerConnection) -> None:
        for number in range(200):
            await socket.send(str(number))
        await socket.close(4000, "done")

    async with behind_gateway(talk) as (url, _), open_client(url) as client:
        await client.send("in between")
        assert [await client.recv() for _ in range(200)] == [str(number) for number in range(200)]
        assert await closed_with(client) == Close(4000, "done")


async def test_messages_before_client_close_arrive() -> None:
    got: list[str | bytes] = []

    async def collect(socket: ServerConnection) -> None:
        async for message in socket:
            got.append(message)

    upstream = Upstream(collect)
    async with behind_gateway(upstream) as (url, front):
        async with open_client(url) as client:
            for number in range(200):
                await client.send(str(number))
        await front.wait_ended()
    assert got == [str(number) for number in range(200)]


@pytest.mark.parametrize("message", ["x" * 1_001, b"x" * 1_001, "é" * 501])
async def test_oversized_client_message_closes_with_1009(message: str | bytes) -> None:
    upstream = Upstream()
    async with (
        behind_gateway(upstream, gateway={"max_message_bytes": 1_000}) as (url, front),
        open_client(url) as client,
    ):
        await client.send(message)
        assert (await closed_with(client)).code == 1009
        assert (await upstream.close()) == Close(1001, "")
        await front.wait_ended()


async def test_oversized_upstream_message_closes_with_1009() -> None:
    async def shout(socket: ServerConnection) -> None:
        await socket.send("x" * 1_000)
        await socket.send("x" * 1_001)

    upstream = Upstream(shout)
    async with (
        behind_gateway(upstream, gateway={"max_message_bytes": 1_000}) as (url, front),
        open_client(url) as client,
    ):
        assert len(await client.recv()) == 1_000
        assert (await closed_with(client)).code == 1009
        assert (await upstream.close() or Close(0, "")).code == 1009
        await front.wait_ended()


def _names(*names: str) -> list[Subprotocol]:
    return [Subprotocol(name) for name in names]


async def test_no_subprotocol_is_chosen_without_upstream_choice() -> None:
    async with behind_gateway(echo) as (url, _), open_client(url, subprotocols=_names("a")) as client:
        assert client.subprotocol is None


async def test_mapping_translates_subprotocols_both_ways() -> None:
    upstream = Upstream()
    mapping = {"chat.v2": "internal-2", "chat.v1": "internal-1"}
    settings = {"subprotocols": _names("internal-1", "chat.v1")}
    async with behind_gateway(upstream, gateway={"subprotocols": mapping}, **settings) as (url, _):
        async with open_client(url, subprotocols=_names("other", "chat.v1", "chat.v2")) as client:
            assert client.subprotocol == "chat.v1"
            request = (await upstream.connection()).request
            assert request is not None
            assert request.headers["Sec-WebSocket-Protocol"] == "internal-1, internal-2"


async def test_accepted_subprotocol_is_requested_upstream() -> None:
    upstream = Upstream()
    options = {"accept": True, "accepted": "b", "subprotocols": ["b"]}
    async with behind_gateway(upstream, gateway=options, subprotocols=_names("a", "b")) as (url, _):
        async with open_client(url, subprotocols=_names("a", "b")) as client:
            assert client.subprotocol == "b"
            assert (await upstream.connection()).subprotocol == "b"


async def test_accept_without_subprotocol_requests_none() -> None:
    upstream = Upstream()
    async with behind_gateway(upstream, gateway={"accept": True}) as (url, _):
        async with open_client(url, subprotocols=_names("a")) as client:
            assert client.subprotocol is None
            request = (await upstream.connection()).request
            assert request is not None
            assert "Sec-WebSocket-Protocol" not in request.headers


async def test_missing_accepted_subprotocol_closes_with_1014() -> None:
    options = {"accept": True, "accepted": "b", "subprotocols": ["b"]}
    async with behind_gateway(Upstream(), gateway=options) as (url, front):
        async with open_client(url, subprotocols=_names("b")) as client:
            assert await closed_with(client) == Close(1014, "the upstream does not support the subprotocol")
        await front.wait_ended()


async def test_unoffered_upstream_subprotocol_is_rejected() -> None:
    def pick(_: ServerConnection, __: object) -> Subprotocol:
        return Subprotocol("mine")

    async with behind_gateway(echo, select_subprotocol=pick) as (url, _):
        denied = await refused_handshake(url, subprotocols=_names("yours"))
    assert denied.status_code == 502


async def test_upstream_subprotocol_is_chosen_for_client() -> None:
    async with (
        behind_gateway(echo, subprotocols=_names("b")) as (url, _),
        open_client(url, subprotocols=_names("a", "b")) as client,
    ):
        assert client.subprotocol == "b"
