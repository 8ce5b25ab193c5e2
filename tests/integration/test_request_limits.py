"""Limits on requests of the application to clients, and on their replies."""

from __future__ import annotations

import pytest
from support.apps import chat, chat_app
from support.asking import asking, receive_request, reply
from support.brokers import PlainBroker
from support.servers import HANG_S, Client, serve

from dws_core import BrokerOverloaded, Limits, WebSocketManager
from dws_core._node.asking import requester, responder


async def test_huge_reply_is_refused_and_may_be_repeated() -> None:
    manager = WebSocketManager("chat", broker=PlainBroker(), limits=Limits(message_bytes=None))
    async with serve(chat_app(manager)) as server, Client.open(f"{server.url}/ws/a", max_size=None) as client:
        async with asking(manager.request("a", timeout_s=HANG_S)) as task:
            to = (await receive_request(client))["reply_to"]
            assert (await reply(client, to, "x" * 100_000))["code"] == "too-large"
            assert (await reply(client, to, "small"))["type"] == "ack"
            assert await task == "small"


async def test_reply_over_message_bytes_closes_the_connection() -> None:
    manager, app = chat(limits=Limits(message_bytes=1_000))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        async with asking(manager.request("a", timeout_s=HANG_S)):
            to = (await receive_request(client))["reply_to"]
            await client.send(type="reply", to=to, data="x" * 1_000)
            await client.assert_closed(1009)


async def test_replies_count_against_the_rate() -> None:
    manager, app = chat(limits=Limits(messages_per_s=0.001, burst=1))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        async with asking(manager.request("a", timeout_s=HANG_S)):
            to = (await receive_request(client))["reply_to"]
            await client.request(type="ping")
            assert (await reply(client, to, 1))["code"] == "rate-limited"


async def test_waiting_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requester, "_MAX_PENDING", 1)
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        async with asking(manager.request("a", timeout_s=HANG_S)):
            await receive_request(client)
            with pytest.raises(BrokerOverloaded, match="1 requests of this node wait"):
                await manager.request("a")


async def test_delivered_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest one is forgotten."""
    monkeypatch.setattr(responder, "_MAX_OPEN", 1)
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        async with asking(manager.request("a", 1, timeout_s=HANG_S)):
            old = (await receive_request(client))["reply_to"]
            async with asking(manager.request("a", 2, timeout_s=HANG_S)) as task:
                new = (await receive_request(client))["reply_to"]
                assert (await reply(client, old, 1))["code"] == "unknown-request"
                await reply(client, new, 2)
                assert await task == 2
