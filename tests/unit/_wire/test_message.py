"""The `Message` built from a client's object."""

from __future__ import annotations

from typing import Any

import pytest

from dws_core import InvalidMessage, Message


def test_message_without_data_uses_other_members() -> None:
    message = Message.from_client_message(data={"type": "send", "topic": "t", "id": 1, "key": "k", "a": 1, "b": 2})
    assert message == Message(data={"a": 1, "b": 2}, typ="send", topic="t", id=1, key="k")


def test_data_member_may_be_null() -> None:
    assert Message.from_client_message(data={"type": "send", "topic": "t", "data": None, "x": 1}).data is None


@pytest.mark.parametrize(("data", "typ"), [({"topic": "t"}, "send"), ({}, "broadcast"), ({"type": None}, "broadcast")])
def test_missing_type_depends_on_topic(data: dict[str, Any], typ: str) -> None:
    """With a topic it is a send, without one a broadcast."""
    assert Message.from_client_message(data=data).type == typ


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("type", 1),
        ("topic", ["t"]),
        ("conn_id", 5),
        ("conn_id", ["a", 5]),
        ("id", 1.5),
        ("id", True),
        ("key", {}),
        ("echo", 0),
    ],
)
def test_member_of_wrong_type_is_named(member: str, value: Any) -> None:
    with pytest.raises(InvalidMessage, match=repr(member)):
        Message.from_client_message(data={member: value})


def test_echo_and_to_are_members_of_their_types_only() -> None:
    """In other messages they belong to the data."""
    read = Message.from_client_message
    assert read(data={"topic": "t", "echo": False, "x": 1}) == Message(data={"x": 1}, typ="send", topic="t", echo=False)
    assert read(data={"type": "broadcast", "echo": False, "data": 1}).echo is False
    assert read(data={"topic": "t", "data": 1}).echo is True
    assert read(data={"type": "reply", "to": "r", "data": 1}) == Message(data=1, typ="reply", to="r")
    assert read(data={"topic": "t", "to": "bob"}).data == {"to": "bob"}
    assert read(data={"type": "history", "topic": "t", "echo": False}).data == {"echo": False}
    assert read(data={"topic": "t", "echo": None, "": 1}) == Message(data={"": 1}, typ="send", topic="t")
    assert read(data={"type": "ping", "": 1}).data == {"": 1}
    with pytest.raises(InvalidMessage, match="member 'to' must be a string"):
        read(data={"type": "reply", "to": 1})


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "null"), (True, "a boolean"), (1, "a number"), ("x", "a string"), ([], "an array"), (b"", "bytes")],
)
def test_non_object_is_rejected_with_its_kind(value: Any, kind: str) -> None:
    with pytest.raises(InvalidMessage, match=f"got {kind}"):
        Message.from_client_message(data=value)


@pytest.mark.parametrize("data", [[1], {"data": 1}, {"type": "x"}, {"id": 1}])
def test_unmergeable_data_is_put_under_data(data: Any) -> None:
    serialized = Message(data=data, typ="send", topic="t").__serialize__()
    assert serialized == {"data": data, "type": "send", "topic": "t", "conn_id": None}


def test_messages_have_equality_and_repr() -> None:
    message = Message(data=1, typ="send", topic="t")
    assert repr(message) == "Message(type='send', topic='t', data=1)"
    assert message != Message(data=2, typ="send", topic="t")
    assert repr(Message(data=1, typ="send", echo=False)) == "Message(type='send', data=1, echo=False)"
    assert message != "something else"


def test_type_is_available_under_original_name() -> None:
    assert Message(data=1, typ="send", topic="t").typ == "send"


@pytest.mark.parametrize("data", [{}, {"typ": "login"}, {"type": ""}, {"type": None, "data": 1}])
def test_untyped_message_may_be_refused(data: dict[str, object]) -> None:
    assert Message.from_client_message(data=data).type == "broadcast"
    with pytest.raises(InvalidMessage, match="neither a type nor a topic"):
        Message.from_client_message(data=data, untyped="refuse")
    assert Message.from_client_message(data={**data, "topic": "t"}, untyped="refuse").type == "send"
