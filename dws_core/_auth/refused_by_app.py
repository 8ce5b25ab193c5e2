"""Refusals of the application that only the server sees: by dependencies, endpoints and middleware."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from dws_core._wire.close_codes import CloseCode

_REPORTS: Final = "dws.refusal"


def reports_of(scope: MutableMapping[str, Any]) -> set[str]:
    """Return how the refusal of a client was reported: with a `line` in the log, by a `count`, or both.

    The set belongs to the scope of the client, also in copies of the scope. Add to it to prevent a second report.
    """
    extensions = scope.get("extensions")
    if extensions is None:
        return set()
    reports: set[str] = extensions.setdefault(_REPORTS, set())
    return reports


def refusal_in(event: Mapping[str, Any], *, opening: bool) -> str | None:
    """Return the reason for which an ASGI event of the application refuses a client. None if it does not.

    Args:
        event: The event.
        opening: Whether the handshake is not answered yet.
    """
    if event["type"] == "websocket.http.response.start":
        return f"HTTP {event['status']}"
    code = event.get("code", 1000)
    if event["type"] != "websocket.close" or not (opening or code == CloseCode.POLICY_VIOLATION):
        return None
    kind = "HTTP 403" if opening else f"close code {code}"
    return f"{kind}, {event.get('reason') or 'without a reason'}"
