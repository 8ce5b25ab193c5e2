"""Members of frames with their types."""

from __future__ import annotations

from typing import Any

import pytest

from dws_core.client._members import seconds_of, text_of, text_or_none, texts_of


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.01),
        (0.0, 0.01),
        (1e-9, 0.01),
        (1, 1.0),
        (2.5, 2.5),
        (1e9, 3600.0),
        (float("inf"), 3600.0),
        (10**400, 3600.0),
    ],
)
def test_seconds_have_bounds(value: float, expected: float) -> None:
    assert seconds_of({"s": value}, "s") == expected


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("-inf"), "1", None, True, [1], {}])
def test_value_that_is_no_time_is_rejected(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        seconds_of({"s": value}, "s")


@pytest.mark.parametrize("value", [1, None, [], {}, b"x", True])
def test_value_that_is_no_text_is_rejected(value: Any) -> None:
    with pytest.raises(TypeError):
        text_of({"t": value}, "t")
    with pytest.raises(TypeError):
        texts_of({"t": [value]}, "t")
    with pytest.raises(TypeError):
        texts_of({"t": value if value != [] else "ab"}, "t")


def test_optional_text_may_be_absent() -> None:
    assert text_or_none({}, "t") is None
    assert text_or_none({"t": None}, "t") is None
    assert text_or_none({"t": "x"}, "t") == "x"
