"""Frames that break the protocol, from a broken or hostile node."""

from __future__ import annotations

from typing import Any

import pytest
from unit.client.frames import connect, error, message, state

from dws_core._errors import InvalidMessage
from dws_core.client._state import stored_messages


@pytest.mark.parametrize(
    "frame",
    [
        None,
        [],
        "connected",
        {},
        {"type": []},
        {"type": "message", "topic": "t"},
        message("0:e:6", topic=5),  # type: ignore[arg-type]  # as a hostile node
        message(6),  # type: ignore[arg-type]
        message("six"),
        {"type": "message", "data": 1, "conn_id": ["me"]},
        {"type": "error", "id": 1},
        error(1, code=7),  # type: ignore[arg-type]
        error(1, message=None),
        error(1, temporary=True, retry_in_s=-1),
        error(1, temporary=True, retry_in_s="soon"),
        error(1, temporary=True, retry_in_s=float("nan")),
        {"type": "gap", "filters": "t", "reason": "epoch", "cursor": "0:e:6"},
        {"type": "gap", "filters": [1], "reason": "epoch", "cursor": "0:e:6"},
        {"type": "gap", "filters": ["t"], "reason": 1, "cursor": "0:e:6"},
        {"type": "gap", "filters": ["t"], "reason": "epoch", "cursor": 5},
        {"type": "pos", "cursor": None},
        {"type": "reconnect", "in_s": -1},
        {"type": "reconnect", "in_s": "now"},
        {"type": "expiring"},
    ],
)
def test_frame_that_breaks_protocol_is_rejected(frame: Any) -> None:
    made = state()
    connect(made)
    with pytest.raises(InvalidMessage, match=r"breaks the protocol|malformed"):
        made.receive(frame)
    assert made.cursor == "0:e:5"


@pytest.mark.parametrize("conn_id", [None, 5, ["me"]])
def test_reply_to_connect_is_checked(conn_id: Any) -> None:
    with pytest.raises(InvalidMessage):
        connect(state(), conn_id=conn_id)


@pytest.mark.parametrize("messages", [None, 5, {"a": 1}, [1], [{}], [{"data": 1, "pos": 5}], ["data"]])
def test_malformed_history_is_rejected(messages: Any) -> None:
    with pytest.raises(InvalidMessage, match="breaks the protocol"):
        stored_messages("t", {"messages": messages})
    with pytest.raises(InvalidMessage):
        stored_messages("t", {})
