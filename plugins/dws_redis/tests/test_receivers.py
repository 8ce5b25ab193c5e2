"""Messages that exclude their sender, and requests to clients, between two nodes on a real Redis."""

from __future__ import annotations

import pytest
from services.redis import PrivateRedis
from support.asking import asking, receive_request, reply
from support.resume import receive_replay
from support.servers import HANG_S, Client
from support.two_nodes import serve_two_nodes

pytestmark = pytest.mark.anyio


async def test_sender_is_excluded_live_and_in_replay(redis: PrivateRedis) -> None:
    hello = {"filters": ["t"], "client_id": "a-random-text-of-one-client"}
    async with serve_two_nodes(f"{redis.url}?partitions=4") as (first, second):
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
    async with (
        serve_two_nodes(f"{redis.url}?partitions=4") as (first, second),
        Client.open(f"{second.url}/ws/a") as client,
    ):
        before = redis.command("DBSIZE")
        async with asking(first.manager.request("a", {"n": 1}, timeout_s=HANG_S)) as task:
            frame = await receive_request(client)
            assert frame["data"] == {"n": 1}
            assert (await reply(client, frame["reply_to"], {"n": 2}))["type"] == "ack"
            assert await task == {"n": 2}
        assert redis.command("DBSIZE") == before
