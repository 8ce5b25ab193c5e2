"""Close codes and reasons that the proxy passes on."""

from __future__ import annotations

from typing import Any

import pytest

from dws_core._proxy.ending import client_left, close_of


def test_reason_is_cut_between_characters() -> None:
    assert close_of(1000, "é" * 100).reason == "é" * 61
    assert close_of(1000, "a" * 123).reason == "a" * 123
    assert close_of(1000, "a" * 122 + "✓").reason == "a" * 122


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"code": 1000, "reason": ""}, 1000),
        ({"code": 4001, "reason": "x"}, 4001),
        ({"code": 1005, "reason": ""}, 1000),
        ({"code": 1005, "reason": None}, 1000),
        ({"code": 1005}, 1001),
        ({}, 1001),
        ({"code": 1006, "reason": ""}, 1001),
        ({"code": 1015}, 1001),
        ({"code": 2999}, 1001),
    ],
)
def test_disconnect_maps_to_sendable_code(event: dict[str, Any], code: int) -> None:
    assert client_left(event).to_upstream.code == code
