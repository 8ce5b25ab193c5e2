"""A client's state, and frames of a node, for tests."""

from __future__ import annotations

from typing import Any

from dws_core.client._events import Event
from dws_core.client._state import ClientState


def state(cursor: str | None = None) -> ClientState:
    return ClientState(key_prefix="k-", cursor=cursor)


def connect(made: ClientState, cursor: str = "0:e:5", **members: Any) -> list[Event]:
    """Send the `connect` request and receive its reply."""
    frame = {"type": "connected", "id": made.hello()["id"], "conn_id": "me", "cursor": cursor, "ping_s": 20}
    return made.receive({**frame, **members})


def message(pos: str | None, topic: str | None = "t", data: object = 1) -> dict[str, Any]:
    members = {"pos": pos, "topic": topic}
    return {"type": "message", "data": data, **{k: v for k, v in members.items() if v is not None}}


def error(number: object, code: str = "forbidden", **members: Any) -> dict[str, Any]:
    return {"type": "error", "id": number, "code": code, "message": "no", "temporary": False, **members}
