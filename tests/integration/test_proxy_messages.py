"""What passes through the proxy: messages of every kind, subprotocols, headers."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.proxies import (
    Upstream,
    behind,
    closed_with,
    echo,
    open_client,
    refused,
)
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.frames import Close
from websockets.typing import Subprotocol


@pytest.mark.parametrize("accept", [True, False])
async def test_a_mix_of_text_and_binary_of_all_sizes_comes_back_as_it_was(accept: bool) -> None:
    dice = random.Random(7)
    messages: list[str | bytes] = []
    for size in [0, 0, 1, 125, 126, 65_535, 65_536, 524_288, *(dice.randrange(300) for _ in range(100))]:
        messages.append("ü" * (size // 2) if dice.random() < 0.5 else dice.randbytes(size))

    async with behind(echo, gateway={"accept": accept}) as (url, _), open_client(url) as client:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send_all(client, messages))
            received = [await client.recv() for _ in messages]
        assert sending.done()
    assert received == messages


async def _send_all(client: ClientConnection, messages: list[str | bytes]) -> None:
    for message in messages:
        await client.send(message)


async def test_a_fragmented_message_arrives_whole_either_way() -> None:
    async def answer(socket: ServerConnection) -> None:
        assert await socket.recv() == "one two"
        await socket.send(["th", "re", "", "e"])
        assert await socket.recv() == b"12"
        await socket.send([b"3", b"4"])

    async with behind(answer) as (url, _), open_client(url) as client:
        await client.send(["one ", "two"])
        assert await client.recv() == "three"
        await client.send([b"1", b"2"])
        assert await client.recv() == b"34"


async def test_messages_sent_before_a_close_arrive_before_it() -> None:
    async def talk(socket: ServerConnection) -> None:
        for number in range(200):
            await socket.send(str(number))
        await socket.close(4000, "done")

    async with behind(talk) as (url, _), open_client(url) as client:
        await client.send("in between")
        assert [await client.recv() for _ in range(200)] == [str(number) for number in range(200)]
        assert await closed_with(client) == Close(4000, "done")


async def test_messages_sent_before_the_client_closes_reach_the_upstream() -> None:
    got: list[str | bytes] = []

    async def collect(socket: ServerConnection) -> None:
        async for message in socket:
            got.append(message)

    upstream = Upstream(collect)
    async with behind(upstream) as (url, front):
        async with open_client(url) as client:
            for number in range(200):
                await client.send(str(number))
        await front.wait_ended()
    assert got == [str(number) for number in range(200)]


@pytest.mark.parametrize("message", ["x" * 1_001, b"x" * 1_001, "é" * 501])
async def test_a_clients_message_over_the_limit_ends_with_1009(message: str | bytes) -> None:
    upstream = Upstream()
    async with behind(upstream, gateway={"max_message_bytes": 1_000}) as (url, front), open_client(url) as client:
        await client.send(message)
        assert (await closed_with(client)).code == 1009
        assert (await upstream.close()) == Close(1001, "")
        await front.wait_ended()


async def test_an_upstreams_message_over_the_limit_ends_with_1009() -> None:
    async def shout(socket: ServerConnection) -> None:
        await socket.send("x" * 1_000)
        await socket.send("x" * 1_001)

    upstream = Upstream(shout)
    async with behind(upstream, gateway={"max_message_bytes": 1_000}) as (url, front), open_client(url) as client:
        assert len(await client.recv()) == 1_000
        assert (await closed_with(client)).code == 1009
        assert (await upstream.close() or Close(0, "")).code == 1009
        await front.wait_ended()


def _names(*names: str) -> list[Subprotocol]:
    return [Subprotocol(name) for name in names]


async def test_no_subprotocol_is_agreed_where_the_upstream_wants_none() -> None:
    async with behind(echo) as (url, _), open_client(url, subprotocols=_names("a")) as client:
        assert client.subprotocol is None


async def test_a_mapping_translates_subprotocols_both_ways() -> None:
    upstream = Upstream()
    mapping = {"chat.v2": "internal-2", "chat.v1": "internal-1"}
    settings = {"subprotocols": _names("internal-1", "chat.v1")}
    async with behind(upstream, gateway={"subprotocols": mapping}, **settings) as (url, _):
        async with open_client(url, subprotocols=_names("other", "chat.v1", "chat.v2")) as client:
            assert client.subprotocol == "chat.v1"
            request = (await upstream.connection()).request
            assert request is not None
            assert request.headers["Sec-WebSocket-Protocol"] == "internal-1, internal-2"


async def test_an_endpoint_that_accepted_with_a_subprotocol_names_it_for_the_upstream() -> None:
    upstream = Upstream()
    options = {"accept": True, "accepted": "b", "subprotocols": ["b"]}
    async with behind(upstream, gateway=options, subprotocols=_names("a", "b")) as (url, _):
        async with open_client(url, subprotocols=_names("a", "b")) as client:
            assert client.subprotocol == "b"
            assert (await upstream.connection()).subprotocol == "b"


async def test_after_an_accept_without_a_subprotocol_none_is_asked_for() -> None:
    upstream = Upstream()
    async with behind(upstream, gateway={"accept": True}) as (url, _):
        async with open_client(url, subprotocols=_names("a")) as client:
            assert client.subprotocol is None
            request = (await upstream.connection()).request
            assert request is not None
            assert "Sec-WebSocket-Protocol" not in request.headers


async def test_an_upstream_that_lacks_the_accepted_subprotocol_ends_with_1014() -> None:
    options = {"accept": True, "accepted": "b", "subprotocols": ["b"]}
    async with behind(Upstream(), gateway=options) as (url, front):
        async with open_client(url, subprotocols=_names("b")) as client:
            assert await closed_with(client) == Close(1014, "the upstream does not speak the subprotocol")
        await front.wait_ended()


async def test_an_upstream_that_picks_a_subprotocol_nobody_offered_is_refused() -> None:
    def pick(_: ServerConnection, __: object) -> Subprotocol:
        return Subprotocol("mine")

    async with behind(echo, select_subprotocol=pick) as (url, _):
        denied = await refused(url, subprotocols=_names("yours"))
    assert denied.status_code == 502


async def test_the_upstreams_choice_becomes_the_clients_subprotocol() -> None:
    async with (
        behind(echo, subprotocols=_names("b")) as (url, _),
        open_client(url, subprotocols=_names("a", "b")) as client,
    ):
        assert client.subprotocol == "b"
