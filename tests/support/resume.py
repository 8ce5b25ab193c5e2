"""Helpers for tests that resume on the wire."""

from __future__ import annotations

from typing import Any

from support.apps import chat_app
from support.log_brokers import SlowBroker
from support.servers import Client

from dws_core import WebSocketManager


async def connect(client: Client, *filters: str, cursor: str | None = None) -> Any:
    """Send `connect`, and return the reply."""
    data: dict[str, Any] = {"filters": list(filters)}
    if cursor is not None:
        data["cursor"] = cursor
    return await client.exchange(type="connect", id="hello", data=data)


async def receive_replay(client: Client) -> list[Any]:
    """Return the data of all messages up to the end of a replay. A gap is returned as its reason."""
    found: list[Any] = []
    while (frame := await client.receive())["type"] not in ("pos", "replayed"):
        found.append(frame["data"] if frame["type"] == "message" else frame["reason"])
    return found


def slow_node(name: str = "", *, partitions: int = 1, **kwargs: Any) -> tuple[SlowBroker, WebSocketManager, Any]:
    """Return a node on a broker that the test can slow down."""
    broker = SlowBroker(name, partitions=partitions)
    manager = WebSocketManager("chat", broker=broker, **kwargs)
    return broker, manager, chat_app(manager)


def offset_of(cursor: str) -> int:
    return int(cursor.split(":")[2])
