"""The rules for a past that is still arriving, one frame at a time."""

from __future__ import annotations

from typing import Any

import pytest

from dws_core._errors import InvalidMessage
from dws_core.client._events import Event, Gap, Message, NotSubscribed, Past, PastEnded, Postponed, Subscribed
from dws_core.client._state import ClientState

SUBSCRIBED = Subscribed(filter="t", subscription=1)


def online(cursor: str = "0:e:5") -> ClientState:
    made = ClientState(key_prefix="k-")
    connect(made, cursor)
    return made


def connect(made: ClientState, cursor: str = "0:e:5", **members: Any) -> list[dict[str, Any]]:
    """Connect, and return the messages that follow the first one."""
    frame = {"type": "connected", "id": made.hello()["id"], "conn_id": "me", "cursor": cursor, "ping_s": 20}
    made.receive({**frame, **members})
    return made.resume(0.0)[0]


def opened(made: ClientState, last: int = 50, subscription: int = 1) -> int:
    """Open the topic `t` with its past, and return the id of the request."""
    request = made.open(subscription, "t", last)
    assert request == {"type": "subscribe", "topic": "t", "last": last, "id": (request or {}).get("id")}
    return int(request["id"])


def ack(number: int, cursor: str = "0:e:7", *, recovered: bool = True) -> dict[str, Any]:
    return {"type": "ack", "id": number, "cursor": cursor, "recovered": recovered}


def message(pos: str, **members: Any) -> dict[str, Any]:
    return {"type": "message", "topic": "t", "data": 1, "pos": pos, **members}


def received(made: ClientState, *frames: dict[str, Any]) -> list[Event]:
    return [event for frame in frames for event in made.receive(frame)]


def past(pos: str, subscription: int = 1) -> Past:
    return Past(subscription=subscription, message=Message(data=1, topic="t", position=pos))


def test_past_belongs_to_its_subscription() -> None:
    made = online()
    number = opened(made)
    assert received(made, ack(number), message("0:e:8", replay=number)) == [SUBSCRIBED, past("0:e:8")]
    assert made.receive(message("0:e:30")) == [Message(data=1, topic="t", position="0:e:30")]
    assert made.cursor == "0:e:30", "the past has not moved it"
    assert made.filters == ()


def test_cursor_covers_filter_after_past() -> None:
    made = online()
    number = opened(made)
    received(made, ack(number))
    assert made.waits is False
    end = {"type": "replayed", "id": number, "cursor": "0:e:40,1:e:3"}
    assert received(made, end) == [SUBSCRIBED, PastEnded(subscription=1)]
    assert (made.filters, made.in_force, made.cursor) == (("t",), {"t"}, "0:e:40,1:e:3")
    made.offline()
    assert connect(made, recovered=True) == [], "connect resumes it"


def test_rest_of_past_is_requested_on_next_connection() -> None:
    made = online()
    number = opened(made)
    received(made, ack(number), message("0:e:8", replay=number), message("0:e:9", replay=number))
    made.offline()
    assert made.hello()["data"] == {"filters": [], "cursor": "0:e:5"}
    (request,) = connect(made, recovered=True)
    assert request == {"type": "subscribe", "topic": "t", "cursor": "0:e:9", "id": request["id"]}
    assert received(made, message("0:e:10", replay=number)) == [], "the id of the earlier connection"
    assert received(made, message("0:e:10", replay=request["id"])) == [past("0:e:10")]


def test_past_without_messages_continues_where_it_began() -> None:
    made = online()
    received(made, ack(opened(made), "0:e:7"))
    made.offline()
    (request,) = connect(made, recovered=True)
    assert request["cursor"] == "0:e:7", "messages that were sent after the answer must arrive"


def test_unanswered_request_is_repeated() -> None:
    made = online()
    opened(made)
    assert made.waits
    made.offline()
    (request,) = connect(made, recovered=True)
    assert request["last"] == 50


def test_connection_lost_before_gap_of_past_keeps_cursor() -> None:
    made = online()
    number = opened(made)
    received(made, ack(number, "0:e:7"))
    made.offline()
    (request,) = connect(made, recovered=True)
    assert received(made, ack(request["id"], "0:f:3", recovered=False)) == []
    made.offline()
    (request,) = connect(made, recovered=True)
    assert request["cursor"] == "0:e:7", "so that the gap is reported again"
    gap = {"type": "gap", "filters": ["t"], "reason": "epoch", "cursor": "0:f:3", "replay": request["id"]}
    answer = ack(request["id"], "0:f:3", recovered=False)
    assert received(made, answer, gap) == [Gap(filters=("t",), reason="epoch"), SUBSCRIBED]
    made.offline()
    assert connect(made, recovered=True)[0]["cursor"] == "0:f:3"


def test_gap_in_past_moves_its_cursor_only() -> None:
    made = online()
    number = opened(made)
    gap = {"type": "gap", "filters": ["t"], "reason": "trimmed", "cursor": "0:e:90", "replay": number}
    assert received(made, ack(number), gap) == [SUBSCRIBED, Gap(filters=("t",), reason="trimmed")]
    assert made.cursor == "0:e:5"
    made.offline()
    assert connect(made, recovered=True)[0]["cursor"] == "0:e:90"


def test_refused_past_ends_only_its_subscription() -> None:
    made = online()
    first, second = opened(made), opened(made, subscription=2)
    refusal = {"type": "error", "id": first, "code": "forbidden", "message": "no", "temporary": False}
    (event,) = received(made, refusal)
    assert isinstance(event, NotSubscribed)
    assert (event.filter, event.subscription) == ("t", 1)
    assert received(made, ack(second)) == [Subscribed(filter="t", subscription=2)]


def test_temporary_refusal_is_postponed() -> None:
    made = online()
    refusal = {"code": "rate-limited", "message": "no", "temporary": True, "retry_in_s": 2.0}
    assert received(made, {"type": "error", "id": opened(made), **refusal}) == [
        Postponed(subscription=1, retry_in_s=2.0)
    ]
    assert not made.waits
    request = made.reopen(1)
    assert request is not None
    assert request["last"] == 50
    assert made.reopen(1) is None, "it is requested already"
    assert made.reopen(2) is None, "it was closed in the meantime"


def test_filter_that_node_removes_ends_its_pasts() -> None:
    """Also that of an answered past. An unanswered one gets its own answer."""
    made = online()
    first, second = opened(made), opened(made, subscription=2)
    made.receive(ack(first))
    events = made.receive({"type": "unsubscribed", "topic": "t", "reason": "forbidden"})
    assert [(type(event), getattr(event, "subscription", None)) for event in events] == [(NotSubscribed, 1)]
    assert made.receive(message("0:e:8", replay=first)) == []
    assert made.receive(ack(second)) == [Subscribed(filter="t", subscription=2)]


def test_closed_past_is_ignored() -> None:
    made = online()
    number = opened(made)
    received(made, ack(number))
    assert made.unsubscribe("t", 1) == {"type": "unsubscribe", "topic": "t"}
    end = {"type": "replayed", "id": number, "cursor": "0:e:9"}
    gap = {"type": "gap", "filters": ["t"], "reason": "trimmed", "cursor": "0:e:90", "replay": number}
    assert received(made, message("0:e:8", replay=number), gap, end) == []
    assert made.filters == ()


def test_filter_is_removed_with_its_last_subscription() -> None:
    made = online()
    number = opened(made)
    opened(made, subscription=2)
    made.subscribe("t")
    assert made.unsubscribe("t") is None
    assert made.unsubscribe("t", 2) is None
    received(made, ack(number), {"type": "replayed", "id": number, "cursor": "0:e:9"})
    assert made.unsubscribe("t", 1) == {"type": "unsubscribe", "topic": "t"}
    assert made.unsubscribe("t", 1) is None


def test_node_without_support_sends_new_messages() -> None:
    made = online()
    number = opened(made)
    assert received(made, {"type": "ack", "id": number, "cursor": "0:e:6"}) == [SUBSCRIBED, PastEnded(subscription=1)]
    assert made.cursor == "0:e:6"


def test_unhashable_replay_id_is_ignored() -> None:
    assert received(online(), message("0:e:8", replay=[1])) == []
    with pytest.raises(InvalidMessage):
        received(online(), message("nonsense", replay=1))
