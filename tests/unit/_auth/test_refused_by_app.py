"""Which events of an application refuse a client."""

from __future__ import annotations

from typing import Any

import pytest

from dws_core._auth.refused_by_app import refusal_in, reports_of


@pytest.mark.parametrize(
    ("event", "opening", "reason"),
    [
        ({"type": "websocket.accept"}, True, None),
        ({"type": "websocket.send", "text": "hi"}, False, None),
        ({"type": "websocket.close"}, True, "HTTP 403, without a reason"),
        ({"type": "websocket.close", "code": 1008, "reason": "no member"}, True, "HTTP 403, no member"),
        ({"type": "websocket.close", "code": 1008, "reason": None}, False, "close code 1008, without a reason"),
        ({"type": "websocket.close", "code": 1000, "reason": ""}, False, None),
        ({"type": "websocket.close", "code": 4002, "reason": "token expired"}, False, None),
        ({"type": "websocket.http.response.start", "status": 429}, True, "HTTP 429"),
        ({"type": "websocket.http.response.body", "body": b"later"}, True, None),
    ],
)
def test_event_refuses_with_reason(event: dict[str, Any], opening: bool, reason: str | None) -> None:
    assert refusal_in(event, opening=opening) == reason


def test_reports_belong_to_client_also_in_copied_scope() -> None:
    scope: dict[str, Any] = {"extensions": {}}
    reports_of({**scope}).add("line")
    assert reports_of(scope) == {"line"}


def test_scope_without_extensions_keeps_no_reports() -> None:
    scope: dict[str, Any] = {}
    reports_of(scope).add("line")
    assert (reports_of(scope), scope) == (set(), {})
