"""Messages to several recipients that are stored for some of them only."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dws_memory import MemoryBroker
from support.apps import chat_app
from support.servers import Client, serve

from dws_core import BrokerUnavailable, PublishOutcomeUnknown, WebSocketManager
from dws_core.plugin import Receipt


class PartlyUnavailable(MemoryBroker):
    """A broker that cannot be reached for some topics, and does not reply for others."""

    def publish(self, partition: int, topic: str, *args: Any, **kwargs: Any) -> asyncio.Future[Receipt]:
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        if topic.startswith("$conn/down"):
            future.set_exception(BrokerUnavailable("the test makes this broker unavailable."))
        elif topic.startswith("$conn/mute"):
            future.set_exception(PublishOutcomeUnknown(topic))
        else:
            return super().publish(partition, topic, *args, **kwargs)
        return future


@pytest.mark.parametrize(
    ("recipients", "code"),
    [
        (["up", "up2"], None),
        (["up", "down"], "outcome-unknown"),
        (["down", "up"], "outcome-unknown"),
        (["down", "down2"], "unavailable"),
        (["down", "mute"], "outcome-unknown"),
        (["mute"], "outcome-unknown"),
        (["down"], "unavailable"),
    ],
)
async def test_half_success_is_reported_as_unknown(recipients: list[str], code: str | None) -> None:
    manager = WebSocketManager("chat", broker=PartlyUnavailable())
    async with serve(chat_app(manager)) as server, Client.open(f"{server.url}/ws/a") as client:
        answer = await client.exchange(type="send_by_conn_id", conn_id=recipients, data=1, id=1)
        assert answer.get("code") == code
        assert answer["type"] == ("ack" if code is None else "error")
        assert await client.exchange(type="ping") == {"type": "pong"}, "there is one answer only"
        if code is None:
            assert len(await manager.send_to(recipients, 1)) == 2
            assert await manager.send_to([], 1) == []
            return
        expected = PublishOutcomeUnknown if code == "outcome-unknown" else BrokerUnavailable
        with pytest.raises(expected):
            await manager.send_to(recipients, 1)
