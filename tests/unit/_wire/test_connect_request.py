"""The `connect` request, a client's first message."""

from __future__ import annotations

from typing import Any

import pytest

from dws_core._errors import InvalidMessage
from dws_core._wire.connect_request import ConnectRequest, read_connect_request, read_cursor
from dws_core._wire.cursor import Position


def test_all_members_are_optional_and_unknown_ignored() -> None:
    assert read_connect_request({}) == ConnectRequest(filters=(), cursor=None)
    assert read_connect_request({"name": "sdk", "version": "1", "token": "t", "more": 1}) == ConnectRequest()


def test_filters_are_deduplicated_in_order() -> None:
    assert read_connect_request({"filters": ["b", "a", "b"]}).filters == ("b", "a")


def test_cursor_may_be_empty_or_missing() -> None:
    assert read_connect_request({"cursor": "0:e:5"}).cursor == {0: Position(0, "e", 5)}
    assert read_connect_request({"cursor": ""}).cursor == {}
    assert read_cursor({}) is None


def test_client_id_is_optional() -> None:
    assert read_connect_request({}).client_id is None
    assert read_connect_request({"client_id": "x" * 16}).client_id == "x" * 16


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "must be an object"),
        ([], "must be an object"),
        ({"filters": "a"}, "array of strings"),
        ({"filters": [1]}, "array of strings"),
        ({"filters": None}, "array of strings"),
        ({"cursor": 5}, "must be a string"),
        ({"cursor": "x"}, "malformed at position 0"),
        ({"client_id": 1}, "16 to 128 characters"),
        ({"client_id": "x" * 15}, "16 to 128 characters"),
        ({"client_id": "x" * 129}, "16 to 128 characters"),
        ({"name": 1}, "'name' of connect must be a string"),
        ({"token": 1}, "'token' of connect must be a string"),
    ],
)
def test_member_of_wrong_type_is_rejected(data: Any, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        read_connect_request(data)
