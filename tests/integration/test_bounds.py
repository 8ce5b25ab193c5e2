"""Every request of a client has a bounded cost. `docs/explanation/limits.md` lists the bounds."""

from __future__ import annotations

from support.apps import chat
from support.cost import memory
from support.servers import Client, serve

from dws_core import Limits


async def test_message_to_too_many_recipients_is_refused() -> None:
    manager, app = chat(limits=Limits(recipients=3))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        answer = await client.exchange(type="send_by_conn_id", conn_id=["a", "b", "c", "d"], data=1, id=1)
        assert (answer["code"], answer["temporary"], manager.stats().published) == ("too-many-recipients", False, 0)
        answer = await client.exchange(type="send_by_conn_id", conn_id=["b", "c", "d", "d", "b"], data=1, id=2)
        assert (answer["type"], manager.stats().published) == ("ack", 3)


async def test_each_recipient_counts_against_rate() -> None:
    manager, app = chat(limits=Limits(messages_per_s=0.001, burst=10))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        recipients = ["b", "c", "d", "e"]
        for number in range(2):
            answer = await client.exchange(type="send_by_conn_id", conn_id=recipients, data=1, id=number)
            assert answer["type"] == "ack"
        answer = await client.exchange(type="send_by_conn_id", conn_id=recipients, data=1, id=2)
        assert (answer["code"], answer["temporary"]) == ("rate-limited", True)
        assert answer["retry_in_s"] > 0
        assert manager.stats().published == 8


async def test_more_recipients_than_burst_are_possible() -> None:
    _, app = chat(limits=Limits(messages_per_s=0.001, burst=3, recipients=9))
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        answer = await client.exchange(type="send_by_conn_id", conn_id=list("bcdefg"), data=1, id=1)
        assert answer["type"] == "ack"
        assert (await client.exchange(type="ping", id=2))["code"] == "rate-limited"


async def test_recipients_share_one_payload() -> None:
    manager, app = chat()
    async with serve(app) as server, Client.open(f"{server.url}/ws/a") as client:
        recipients = [f"nobody-{number}" for number in range(100)]
        await client.exchange(type="ping")
        with memory() as cost:
            answer = await client.exchange(type="send_by_conn_id", conn_id=recipients, data="x" * 50_000, id=1)
            assert answer["type"] == "ack"
        assert manager.stats().published == 100
        assert cost.kept_bytes < 1_000_000  # 100 copies have 5,000,000
