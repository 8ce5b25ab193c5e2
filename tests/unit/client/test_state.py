"""The state of a client and its decisions, one frame at a time."""

from __future__ import annotations

from typing import Any

import pytest
from unit.client.frames import connect, error, message, state

from dws_core._errors import InvalidMessage, PublishOutcomeUnknown
from dws_core._wire.client_errors import Refused
from dws_core.client._events import (
    Answered,
    Connected,
    Expiring,
    Failed,
    Gap,
    HelloRefused,
    Leave,
    Message,
    NotSubscribed,
    Requested,
    Subscribed,
)
from dws_core.client._state import KEY_WINDOW_S, ClientState, stored_messages

# -- the first message


def test_first_message_has_filters_and_no_cursor() -> None:
    made = state()
    assert made.subscribe("a/#") is None, "nothing to send to yet"
    hello = made.hello()
    assert hello == {"type": "connect", "id": hello["id"], "data": {"filters": ["a/#"]}}
    assert made.cursor is None
    assert not made.online


def test_connected_reply_activates_filters() -> None:
    made = state()
    made.subscribe("a")
    assert connect(made) == [Connected(conn_id="me", recovered=None), Subscribed(filter="a")]
    assert made.online
    assert made.in_force == {"a"}
    assert made.cursor == "0:e:5"


def test_message_before_connected_reply_is_ignored() -> None:
    made = state("0:e:5")
    made.hello()
    assert made.receive(message("0:e:7")) == []
    assert made.cursor == "0:e:5", "it will come again after the answer"


def test_reconnecting_client_sends_its_cursor() -> None:
    made = state()
    made.subscribe("a")
    connect(made)
    made.receive(message("0:e:9"))
    made.offline()
    assert not made.online
    assert made.in_force == set()
    assert made.hello()["data"] == {"filters": ["a"], "cursor": "0:e:9"}


def test_client_resumes_from_given_cursor() -> None:
    assert state("0:e:9,1:f:2").hello()["data"]["cursor"] == "0:e:9,1:f:2"
    with pytest.raises(InvalidMessage):
        state("nonsense")


# -- the cursor


def test_message_moves_partition_and_reply_moves_all() -> None:
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


def test_own_publish_does_not_move_cursor() -> None:
    made = state()
    connect(made)
    number, _ = made.request({"type": "send", "topic": "t", "data": 1, "key": "k"})
    made.receive({"type": "ack", "id": number, "pos": "0:e:99"})
    assert made.cursor == "0:e:5"


def test_gap_after_reply_replaces_whole_cursor() -> None:
    """A later gap replaces only its partitions."""
    made = state("0:e:1,1:e:1")
    assert connect(made, "0:f:5,1:f:5", recovered=False) == [Connected(conn_id="me", recovered=False)]
    gap = {"type": "gap", "filters": ["a"], "reason": "epoch", "cursor": "0:f:6"}
    assert made.receive(gap) == [Gap(filters=("a",), reason="epoch")]
    assert made.cursor == "0:f:6"
    made.receive({**gap, "cursor": "1:f:9"})
    assert made.cursor == "0:f:6,1:f:9"


def test_connection_lost_before_gap_keeps_old_cursor() -> None:
    """The next connection then reports the gap again."""
    made = state("0:e:1")
    connect(made, "0:f:5", recovered=False)
    made.offline()
    assert made.hello()["data"]["cursor"] == "0:e:1"


def test_expected_gap_is_cleared_when_connection_is_lost() -> None:
    made = state("0:e:1")
    connect(made, "0:f:5,1:f:5", recovered=False)
    made.offline()
    connect(made, "0:f:5,1:f:5", recovered=True)
    made.receive({"type": "gap", "filters": ["a"], "reason": "trimmed", "cursor": "0:f:9"})
    assert made.cursor == "0:f:9,1:f:5"


# -- filters


def test_shared_filter_is_sent_and_removed_once() -> None:
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


def test_rejected_filter_is_removed() -> None:
    made = state()
    connect(made)
    asked = made.subscribe("a")
    assert asked is not None
    (event,) = made.receive(error(asked["id"]))
    assert isinstance(event, NotSubscribed)
    assert (event.filter, str(event.error)) == ("a", "no [dws:refused]")
    assert made.filters == ()


def test_filter_changes_during_connect_are_sent_after_it() -> None:
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


def test_unanswered_filter_is_in_next_connect() -> None:
    made = state()
    connect(made)
    made.subscribe("a")
    made.offline()
    assert not made.waits
    assert connect(made, recovered=True) == [Connected(conn_id="me", recovered=True), Subscribed(filter="a")]


# -- requests


def test_reply_is_reported_once() -> None:
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


def test_error_fails_its_request_and_unknown_is_ignored() -> None:
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


def test_unanswered_requests_are_resent_in_order() -> None:
    """Each request keeps its key."""
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


def test_publish_is_not_repeated_after_key_window() -> None:
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


def test_node_without_connect_gets_each_filter() -> None:
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


def test_node_without_connect_reports_possible_loss() -> None:
    """It is reported as a gap."""
    made = state("0:e:5")
    made.subscribe("a")
    gap = Gap(filters=("a",), reason="unsupported")
    assert made.receive(error(made.hello()["id"], "unknown-type"))[1:] == [gap], "a cursor of no use"
    made.offline()
    assert made.receive(error(made.hello()["id"], "unknown-type"))[1:] == [gap], "a lost connection"
    made.offline()
    assert connect(made)[1:2] == [gap], "a lost connection, and now a node that could have resumed"
    made.offline()
    assert connect(made, recovered=True)[1:] == [Subscribed(filter="a")]


def test_no_gap_is_reported_without_filters() -> None:
    made = state("0:e:5")
    assert made.receive(error(made.hello()["id"], "unknown-type")) == [Connected(conn_id=None, recovered=None)]


def test_unreadable_cursor_is_dropped_and_loss_reported() -> None:
    made = state("0:e:5")
    made.subscribe("a")
    (event,) = made.receive(error(made.hello()["id"], "invalid-message"))
    assert isinstance(event, HelloRefused)
    assert event.error.temporary, "the next attempt goes without"
    made.offline()
    assert "cursor" not in made.hello()["data"]
    assert Gap(filters=("a",), reason="unsupported") in connect(made)


@pytest.mark.parametrize("code", ["forbidden", "invalid-message"])
def test_rejected_client_receives_permanent_error(code: str) -> None:
    made = state()
    (event,) = made.receive(error(made.hello()["id"], code))
    assert isinstance(event, HelloRefused)
    assert (event.error.code, event.error.temporary) == (code, False)


# -- other frames


def test_node_announcements_become_events() -> None:
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
def test_invalid_frame_raises_invalid_message(frame: Any) -> None:
    made = state()
    connect(made)
    with pytest.raises(InvalidMessage):
        made.receive(frame)


def test_history_is_list_of_messages() -> None:
    reply = {"messages": [{"data": 1, "pos": "0:e:1"}, {"data": 2}]}
    assert stored_messages("t", reply) == [Message(data=1, topic="t", position="0:e:1"), Message(data=2, topic="t")]


def test_client_id_is_sent_with_first_message() -> None:
    made = ClientState(key_prefix="k-", client_id="secret")
    assert made.hello()["data"] == {"filters": [], "client_id": "secret"}


def test_removed_filter_fails_its_subscription() -> None:
    made = state()
    made.subscribe("t")
    made.subscribe("u")
    connect(made)
    (event,) = made.receive({"type": "unsubscribed", "topic": "t", "reason": "forbidden"})
    assert isinstance(event, NotSubscribed)
    assert isinstance(event.error, Refused)
    assert (event.filter, event.error.code, event.error.temporary) == ("t", "forbidden", False)
    assert (made.filters, made.in_force) == (("u",), {"u"})
    assert made.hello()["data"]["filters"] == ["u"]
    assert made.receive({"type": "unsubscribed", "topic": "t", "reason": "forbidden"}) == []


def test_message_to_user_names_the_user() -> None:
    made = state()
    connect(made)
    (event,) = made.receive({"type": "message", "data": 1, "user": "ann"})
    assert event == Message(data=1, user="ann")


def test_request_of_node_is_an_event() -> None:
    made = state()
    connect(made)
    frame = {"type": "request", "reply_to": "r", "timeout_s": 5.0, "data": {"n": 1}}
    assert made.receive(frame) == [Requested(data={"n": 1}, reply_to="r", timeout_s=5.0)]
    for broken in ({"reply_to": 1}, {"timeout_s": "5"}, {"timeout_s": -1}):
        with pytest.raises(InvalidMessage):
            made.receive({**frame, **broken})
