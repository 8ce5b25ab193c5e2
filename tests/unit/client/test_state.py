"""What a client remembers and decides, frame by frame."""

from __future__ import annotations

from typing import Any

import pytest

from dws_core._errors import InvalidMessage, PublishOutcomeUnknown
from dws_core.client._state import (
    KEY_WINDOW_S,
    Answered,
    ClientState,
    Connected,
    Event,
    Expiring,
    Failed,
    Gap,
    HelloRefused,
    Leave,
    Message,
    NotSubscribed,
    Subscribed,
)


def state(cursor: str | None = None) -> ClientState:
    return ClientState(key_prefix="k-", cursor=cursor)


def connect(made: ClientState, cursor: str = "0:e:5", **members: Any) -> list[Event]:
    """Say hello and be answered."""
    frame = {"type": "connected", "id": made.hello()["id"], "conn_id": "me", "cursor": cursor, "ping_s": 20}
    return made.receive({**frame, **members})


def message(pos: str | None, topic: str | None = "t", data: object = 1) -> dict[str, Any]:
    members = {"pos": pos, "topic": topic}
    return {"type": "message", "data": data, **{k: v for k, v in members.items() if v is not None}}


def error(number: object, code: str = "forbidden", **members: Any) -> dict[str, Any]:
    return {"type": "error", "id": number, "code": code, "message": "no", "temporary": False, **members}


# -- the first message


def test_the_first_message_carries_the_filters_and_no_cursor_where_there_is_none() -> None:
    made = state()
    assert made.subscribe("a/#") is None, "nothing to send to yet"
    hello = made.hello()
    assert hello == {"type": "connect", "id": hello["id"], "data": {"filters": ["a/#"]}}
    assert made.cursor is None
    assert not made.online


def test_the_answer_brings_the_client_online_with_its_filters_in_force() -> None:
    made = state()
    made.subscribe("a")
    assert connect(made) == [Connected(conn_id="me", recovered=None), Subscribed(filter="a")]
    assert made.online
    assert made.in_force == {"a"}
    assert made.cursor == "0:e:5"


def test_what_comes_before_the_answer_does_not_count() -> None:
    made = state("0:e:5")
    made.hello()
    assert made.receive(message("0:e:7")) == []
    assert made.cursor == "0:e:5", "it will come again after the answer"


def test_a_client_that_comes_back_sends_its_cursor() -> None:
    made = state()
    made.subscribe("a")
    connect(made)
    made.receive(message("0:e:9"))
    made.offline()
    assert not made.online
    assert made.in_force == set()
    assert made.hello()["data"] == {"filters": ["a"], "cursor": "0:e:9"}


def test_a_cursor_of_an_earlier_client_is_resumed_from() -> None:
    assert state("0:e:9,1:f:2").hello()["data"]["cursor"] == "0:e:9,1:f:2"
    with pytest.raises(InvalidMessage):
        state("nonsense")


# -- how the cursor moves


def test_news_move_their_partition_and_answers_move_everything() -> None:
    made = state()
    connect(made, "0:e:5,1:e:5")
    made.receive(message("1:e:8"))
    assert made.cursor == "0:e:5,1:e:8"
    made.receive({"type": "pos", "cursor": "0:e:90"})
    assert made.cursor == "0:e:90,1:e:8"
    made.receive(message(None))
    asked = made.subscribe("b")
    assert asked is not None
    made.receive({"type": "ack", "id": asked["id"], "cursor": "1:e:7,2:e:1"})
    assert made.cursor == "1:e:7,2:e:1"


def test_the_position_of_an_own_publish_never_moves_the_cursor() -> None:
    made = state()
    connect(made)
    number, _ = made.request({"type": "send", "topic": "t", "data": 1, "key": "k"})
    made.receive({"type": "ack", "id": number, "pos": "0:e:99"})
    assert made.cursor == "0:e:5"


def test_the_gap_after_an_answer_replaces_everything_and_a_later_one_its_partitions() -> None:
    made = state("0:e:1,1:e:1")
    assert connect(made, "0:f:5,1:f:5", recovered=False) == [Connected(conn_id="me", recovered=False)]
    gap = {"type": "gap", "filters": ["a"], "reason": "epoch", "cursor": "0:f:6"}
    assert made.receive(gap) == [Gap(filters=("a",), reason="epoch")]
    assert made.cursor == "0:f:6"
    made.receive({**gap, "cursor": "1:f:9"})
    assert made.cursor == "0:f:6,1:f:9"


def test_a_connection_lost_before_its_gap_leaves_the_cursor_so_that_the_next_one_brings_the_gap() -> None:
    made = state("0:e:1")
    connect(made, "0:f:5", recovered=False)
    made.offline()
    assert made.hello()["data"]["cursor"] == "0:e:1"


def test_a_gap_that_was_expected_when_the_connection_was_lost_is_expected_no_more() -> None:
    made = state("0:e:1")
    connect(made, "0:f:5,1:f:5", recovered=False)
    made.offline()
    connect(made, "0:f:5,1:f:5", recovered=True)
    made.receive({"type": "gap", "filters": ["a"], "reason": "trimmed", "cursor": "0:f:9"})
    assert made.cursor == "0:f:9,1:f:5"


# -- filters


def test_a_filter_that_two_want_is_sent_once_and_removed_with_the_last() -> None:
    made = state()
    connect(made)
    asked = made.subscribe("a")
    assert asked == {"type": "subscribe", "topic": "a", "id": asked and asked["id"]}
    assert made.waits
    assert made.subscribe("a") is None
    assert made.receive({"type": "ack", "id": asked["id"]}) == [Subscribed(filter="a")]
    assert not made.waits
    assert made.unsubscribe("a") is None
    assert made.filters == ("a",)
    assert made.unsubscribe("a") == {"type": "unsubscribe", "topic": "a"}
    assert made.in_force == set()
    assert made.unsubscribe("a") is None


def test_a_refused_filter_is_wanted_no_more() -> None:
    made = state()
    connect(made)
    asked = made.subscribe("a")
    assert asked is not None
    (event,) = made.receive(error(asked["id"]))
    assert isinstance(event, NotSubscribed)
    assert (event.filter, str(event.error)) == ("a", "no [dws:refused]")
    assert made.filters == ()


def test_what_changed_while_the_first_message_was_on_its_way_is_made_good() -> None:
    made = state()
    made.subscribe("old")
    made.subscribe("kept")
    hello = made.hello()
    made.unsubscribe("old")
    assert made.subscribe("new") is None
    made.receive({"type": "connected", "id": hello["id"], "conn_id": "me", "cursor": ""})
    messages, failed = made.resume(0.0)
    assert [(m["type"], m["topic"]) for m in messages] == [("unsubscribe", "old"), ("subscribe", "new")]
    assert failed == []


def test_a_filter_whose_answer_was_lost_is_part_of_the_next_first_message() -> None:
    made = state()
    connect(made)
    made.subscribe("a")
    made.offline()
    assert not made.waits
    assert connect(made, recovered=True) == [Connected(conn_id="me", recovered=True), Subscribed(filter="a")]


# -- requests


def test_an_answer_is_told_once() -> None:
    made = state()
    connect(made)
    number, request = made.request({"type": "send", "topic": "t", "data": 1, "key": "k"})
    assert request == {"type": "send", "topic": "t", "data": 1, "key": "k", "id": number}
    ack = {"type": "ack", "id": number, "pos": "0:e:6"}
    assert made.receive(ack) == [Answered(id=number, frame=ack)]
    assert made.receive(ack) == []
    number, _ = made.request({"type": "history", "topic": "t", "limit": 2})
    answer = {"type": "history", "id": number, "messages": [], "cursor": ""}
    assert made.receive(answer) == [Answered(id=number, frame=answer)]


def test_an_error_fails_its_request_and_others_are_passed_over() -> None:
    made = state()
    connect(made)
    number, _ = made.request({"type": "send", "topic": "t", "data": 1, "key": "k"})
    (event,) = made.receive(error(number, "rate-limited", temporary=True, retry_in_s=0.5))
    assert isinstance(event, Failed)
    assert (event.id, event.error.code, event.error.temporary, event.error.retry_in_s) == (  # type: ignore[attr-defined]
        number, "rate-limited", True, 0.5,
    )  # fmt: skip
    assert made.receive(error(number)) == []
    assert made.receive({"type": "error", "code": "x", "message": "y", "temporary": False}) == []


def test_unanswered_requests_are_sent_again_in_order_under_the_same_key() -> None:
    made = state()
    connect(made)
    requests = [made.request({"type": "send", "topic": "t", "data": n, "key": f"k{n}"}) for n in range(3)]
    made.sent(requests[0][0], 1.0)
    made.forget(requests[1][0])
    made.offline()
    _, late_message = made.request({"type": "history", "topic": "t", "limit": 1})
    connect(made, recovered=True)
    assert made.resume(2.0) == ([requests[0][1], requests[2][1], late_message], [])
    assert made.waits


def test_a_publish_whose_key_may_be_forgotten_is_not_repeated() -> None:
    made = state()
    connect(made)
    old, _ = made.request({"type": "send", "topic": "t", "data": 1, "key": "k"})
    asked, _ = made.request({"type": "history", "topic": "t", "limit": 1})
    fresh, _ = made.request({"type": "broadcast", "data": 1, "key": "k"})
    made.sent(old, 0.0)
    made.sent(old, 40.0)
    made.sent(asked, 0.0)
    made.offline()
    connect(made, recovered=True)
    messages, failed = made.resume(KEY_WINDOW_S + 1)
    assert [m["id"] for m in messages] == [asked, fresh]
    assert [f.id for f in failed] == [old]
    assert isinstance(failed[0].error, PublishOutcomeUnknown)
    assert made.resume(KEY_WINDOW_S + 1)[1] == []
    made.sent(old, 1.0)


def test_keys_differ() -> None:
    made = state()
    keys = {made.new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("k-") for key in keys)


# -- nodes that do not resume


def test_a_node_without_connect_is_served_filter_by_filter() -> None:
    made = state()
    made.subscribe("a")
    hello = made.hello()
    assert made.receive(error(hello["id"], "unknown-type")) == [Connected(conn_id=None, recovered=None)]
    assert made.online
    ((asked,), _) = made.resume(0.0)
    assert (asked["type"], asked["topic"]) == ("subscribe", "a")
    assert made.receive({"type": "ack", "id": asked["id"]}) == [Subscribed(filter="a")]
    assert made.receive(message("0:e:9")) == [Message(data=1, topic="t", position="0:e:9")]
    assert made.cursor is None, "a part of a cursor would pass for a whole one"


def test_a_node_without_connect_means_a_gap_whenever_something_may_have_been_missed() -> None:
    made = state("0:e:5")
    made.subscribe("a")
    gap = Gap(filters=("a",), reason="unavailable")
    assert made.receive(error(made.hello()["id"], "unknown-type"))[1:] == [gap], "a cursor of no use"
    made.offline()
    assert made.receive(error(made.hello()["id"], "unknown-type"))[1:] == [gap], "a lost connection"
    made.offline()
    assert connect(made)[1:2] == [gap], "a lost connection, and now a node that could have resumed"
    made.offline()
    assert connect(made, recovered=True)[1:] == [Subscribed(filter="a")]


def test_without_filters_there_is_nothing_to_tell() -> None:
    made = state("0:e:5")
    assert made.receive(error(made.hello()["id"], "unknown-type")) == [Connected(conn_id=None, recovered=None)]


def test_a_cursor_that_a_node_cannot_read_is_dropped_and_the_loss_told() -> None:
    made = state("0:e:5")
    made.subscribe("a")
    (event,) = made.receive(error(made.hello()["id"], "invalid-message"))
    assert isinstance(event, HelloRefused)
    assert event.error.temporary, "the next attempt goes without"
    made.offline()
    assert "cursor" not in made.hello()["data"]
    assert Gap(filters=("a",), reason="unavailable") in connect(made)


@pytest.mark.parametrize("code", ["forbidden", "invalid-message"])
def test_a_client_that_the_node_does_not_take_is_told(code: str) -> None:
    made = state()
    (event,) = made.receive(error(made.hello()["id"], code))
    assert isinstance(event, HelloRefused)
    assert (event.error.code, event.error.temporary) == (code, False)


# -- other frames


def test_announcements_of_the_node() -> None:
    made = state()
    connect(made)
    assert made.receive({"type": "reconnect", "in_s": 3}) == [Leave(in_s=3.0)]
    assert made.receive({"type": "expiring", "in_s": 30}) == [Expiring(in_s=30.0)]
    assert made.receive({"type": "from the future", "x": 1}) == []
    direct = {"type": "message", "data": None, "conn_id": "me"}
    assert made.receive(direct) == [Message(data=None, conn_id="me")]


@pytest.mark.parametrize(
    "frame",
    [
        None, 5, [], {}, {"type": []}, {"type": "message"}, {"type": "message", "data": 1, "pos": "x"},
        {"type": "message", "data": 1, "pos": 5}, {"type": "pos"}, {"type": "pos", "cursor": 1}, {"type": "ack"},
        {"type": "gap", "filters": 1, "reason": "x", "cursor": ""}, {"type": "reconnect", "in_s": "soon"},
        {"type": "connected", "cursor": ""}, {"type": "error", "code": "x"},
    ],
)  # fmt: skip
def test_what_is_not_of_the_protocol_is_an_invalid_message(frame: Any) -> None:
    made = state()
    connect(made)
    with pytest.raises(InvalidMessage):
        made.receive(frame)
