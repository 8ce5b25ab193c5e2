"""The members of `subscribe` that request a past."""

from __future__ import annotations

import pytest

from dws_core._errors import InvalidMessage
from dws_core._wire.cursor import Position
from dws_core._wire.past_request import PastRequest, read_past_request


@pytest.mark.parametrize("data", [{}, {"last": None, "cursor": None}, [], "x", None])
def test_subscribe_without_past_is_none(data: object) -> None:
    assert read_past_request(data) is None


def test_last_or_cursor_is_read() -> None:
    assert read_past_request({"last": 50}) == PastRequest(last=50)
    assert read_past_request({"cursor": "0:e:7"}) == PastRequest(cursor={0: Position(0, "e", 7)})
    assert read_past_request({"cursor": ""}) == PastRequest(cursor={})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"last": 0}, "positive integer"),
        ({"last": -1}, "positive integer"),
        ({"last": 1.5}, "positive integer"),
        ({"last": True}, "positive integer"),
        ({"last": "50"}, "positive integer"),
        ({"last": 5, "cursor": "0:e:7"}, "either 'last' or 'cursor'"),
        ({"cursor": 7}, "must be a string"),
        ({"cursor": "x"}, "malformed"),
    ],
)
def test_invalid_past_is_rejected(data: object, expected: str) -> None:
    with pytest.raises(InvalidMessage, match=expected):
        read_past_request(data)
