"""The messages that a node sends: names and members, with and without optional ones."""

from __future__ import annotations

from typing import Any

import pytest

from dws_core import BrokerUnavailable
from dws_core._wire import server_messages
from dws_core._wire.client_errors import INTERNAL, describe
from dws_core._wire.cursor import Position
from dws_core._wire.node_topics import ALL, conn_topic

CURSOR = {0: Position(0, "e", 7)}


@pytest.mark.parametrize(
    ("topic", "pos", "expected"),
    [
        ("chat", "0:e:1", {"type": "message", "topic": "chat", "pos": "0:e:1"}),
        ("chat", None, {"type": "message", "topic": "chat"}),
        (ALL, None, {"type": "message"}),
        (conn_topic("a/b"), None, {"type": "message", "conn_id": "a/b"}),
        ("$other", None, {"type": "message"}),
    ],
)
def test_message_names_topic_or_connection(topic: str, pos: str | None, expected: dict[str, Any]) -> None:
    assert server_messages.message(topic, pos) == expected


def test_replies_carry_the_request_id_if_there_is_one() -> None:
    assert server_messages.pong(None) == {"type": "pong"}
    assert server_messages.pong(0) == {"type": "pong", "id": 0}
    assert server_messages.ack("x", pos="0:e:1") == {"type": "ack", "id": "x", "pos": "0:e:1"}


def test_connected_reports_recovery_only_for_a_cursor() -> None:
    without = server_messages.connected(None, conn_id="c", ping_s=20.0, cursor={}, recovered=None)
    assert without == {"type": "connected", "conn_id": "c", "ping_s": 20.0, "cursor": ""}
    lost = server_messages.connected(None, conn_id="c", ping_s=20.0, cursor=CURSOR, recovered=False)
    assert (lost["cursor"], lost["recovered"]) == ("0:e:7", False)


def test_ack_of_subscribe_carries_cursor_and_recovery() -> None:
    ack = server_messages.ack(1, cursor=CURSOR, recovered=False)
    assert ack == {"type": "ack", "id": 1, "cursor": "0:e:7", "recovered": False}
    assert server_messages.ack(1, cursor={}) == {"type": "ack", "id": 1, "cursor": ""}


def test_history_lists_data_with_positions() -> None:
    reply = server_messages.history(None, topic="t", messages=[({"n": 1}, "0:e:1", None)], cursor="0:e:1")
    assert reply == {
        "type": "history",
        "topic": "t",
        "messages": [{"data": {"n": 1}, "pos": "0:e:1"}],
        "cursor": "0:e:1",
    }


def test_gap_lists_filters_in_order() -> None:
    gap = server_messages.gap({"b", "a"}, "epoch", CURSOR)
    assert gap == {"type": "gap", "filters": ["a", "b"], "reason": "epoch", "cursor": "0:e:7"}


def test_error_has_id_and_retry_only_if_there_are_any() -> None:
    assert server_messages.error(INTERNAL) == {
        "type": "error",
        "code": "internal",
        "message": INTERNAL.message,
        "temporary": False,
    }
    described = describe(BrokerUnavailable("down", retry_after_s=1.23456))
    assert described is not None
    error = server_messages.error(described, "x")
    assert (error["retry_in_s"], error["id"]) == (1.235, "x")


def test_history_counts_skipped_messages() -> None:
    assert server_messages.history(1, topic="t", messages=[], cursor="0:e:1", skipped=2)["skipped"] == 2
    assert "skipped" not in server_messages.history(1, topic="t", messages=[], cursor="0:e:1")


def test_request_has_text_for_reply_and_time() -> None:
    assert server_messages.request("r", 5.0) == {"type": "request", "reply_to": "r", "timeout_s": 5.0}
