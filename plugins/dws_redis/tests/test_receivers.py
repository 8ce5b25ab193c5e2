"""Messages that exclude their sender, and requests to clients, between two nodes on a real Redis."""

from __future__ import annotations

import asyncio

import pytest
from services.redis import PrivateRedis
from support.apps import chat
from support.resume import receive_replay
from support.servers import HANG_S, Client, serve

pytestmark = pytest.mark.anyio


async def test_sender_is_excluded_live_and_in_replay(redis: PrivateRedis) -> None:
    url = f"{redis.url}?partitions=4"
    _, first_app = chat(url)
    _, second_app = chat(url)
    hello = {"filters": ["t"], "client_id": "a-random-text-of-one-client"}
    async with serve(first_app) as first, serve(second_app) as second:
        async with Client.open(f"{first.url}/ws/a") as sender, Client.open(f"{second.url}/ws/b") as other:
            await other.subscribe("t")
            cursor = (await sender.request(type="connect", data=hello))["cursor"]
            await sender.request(type="send", topic="t", data="for the others", echo=False)
            await sender.request(type="send", topic="t", data="for all")
            await sender.assert_received("for all")
            await other.assert_received("for the others", "for all")
        async with Client.open(f"{second.url}/ws/a") as sender:
            await sender.request(type="connect", data={**hello, "cursor": cursor})
            assert await receive_replay(sender) == ["for all"]


async def test_client_on_other_node_replies(redis: PrivateRedis) -> None:
    """Neither the request nor the reply is stored."""
    url = f"{redis.url}?partitions=4"
    one, first_app = chat(url)
    _, second_app = chat(url)
    async with serve(first_app), serve(second_app) as second, Client.open(f"{second.url}/ws/a") as client:
        before = redis.command("DBSIZE")
        asking = asyncio.get_running_loop().create_task(one.request("a", {"n": 1}, timeout_s=HANG_S))
        frame = await client.receive()
        assert (frame["type"], frame["data"]) == ("request", {"n": 1})
        await client.send(type="reply", to=frame["reply_to"], data={"n": 2})
        assert await asking == {"n": 2}
        assert redis.command("DBSIZE") == before
