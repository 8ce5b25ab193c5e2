"""The close codes and HTTP statuses that end or refuse a proxied connection. Pure functions and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from websockets.exceptions import ConnectionClosed, InvalidStatus

from dws_core._reason import shorten_reason
from dws_core._wire.close_codes import ABNORMAL, NO_STATUS, CloseCode, code_of_status, is_sendable

if TYPE_CHECKING:
    from starlette.types import Message
    from websockets.http11 import Response

_OF_THE_PROXY: Final = frozenset({407, 421})
"""HTTP statuses of the upstream that are about the proxy's own request."""

_FORWARDED_HEADERS: Final = ("www-authenticate", "retry-after")
"""Headers that belong to the status of a refusal (RFC 9110 §11.6.1, §10.2.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The content of a close frame."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The close frames for both sides at the end. Closing a side that is closed already does nothing."""

    to_client: Close
    to_upstream: Close


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The refusal of a client: an HTTP status before the handshake, a close frame after it."""

    status: int
    close: Close
    headers: Mapping[str, str] = field(default_factory=dict)


GOING_AWAY: Final = Close(code=CloseCode.GOING_AWAY)
STOPPED: Final = Ending(to_client=GOING_AWAY, to_upstream=GOING_AWAY)
BROKEN: Final = Ending(
    to_client=Close(code=CloseCode.INTERNAL_ERROR, reason="the proxy failed"),
    to_upstream=Close(code=CloseCode.INTERNAL_ERROR, reason="the proxy failed"),
)
CLIENT_LOST: Final = Ending(
    to_client=GOING_AWAY,
    to_upstream=Close(code=CloseCode.GOING_AWAY, reason="the client's connection was lost"),
)
CLIENT_STALLED: Final = Ending(
    to_client=Close(code=CloseCode.POLICY_VIOLATION, reason="the client reads too slowly"),
    to_upstream=Close(code=CloseCode.GOING_AWAY, reason="the client stopped reading"),
)
UPSTREAM_STALLED: Final = Ending(
    to_client=Close(code=CloseCode.TRY_AGAIN_LATER, reason="the upstream stopped reading"),
    to_upstream=GOING_AWAY,
)
TOO_BIG: Final = Ending(
    to_client=Close(code=CloseCode.MESSAGE_TOO_BIG, reason="the message is too big"), to_upstream=GOING_AWAY
)
OTHER_SUBPROTOCOL: Final = Ending(
    to_client=Close(code=CloseCode.BAD_GATEWAY, reason="the upstream does not support the subprotocol"),
    to_upstream=GOING_AWAY,
)


def close_of(code: int, reason: str) -> Close:
    """Make the content of a close frame. A reason that is too long is cut between two characters."""
    return Close(code=code, reason=shorten_reason(reason))


def client_left(event: Message) -> Ending:
    """Return the ending for a client that has left, from the event `websocket.disconnect`."""
    code = event.get("code", NO_STATUS)
    if code == ABNORMAL or (code == NO_STATUS and "reason" not in event):
        # uvicorn reports 1005 for a lost connection too, but adds a reason only if it received a close frame.
        return CLIENT_LOST
    if code == NO_STATUS:  # a close frame without a code
        return Ending(to_client=GOING_AWAY, to_upstream=Close(code=CloseCode.NORMAL))
    close = close_of(code if is_sendable(code) else CloseCode.GOING_AWAY, event.get("reason") or "")
    return Ending(to_client=close, to_upstream=close)


def upstream_left(closed: ConnectionClosed) -> Ending:
    """Return the ending for an upstream that has left, from the exception that `recv` raises after the last message."""
    if closed.rcvd is not None:
        code = CloseCode.NORMAL if closed.rcvd.code == NO_STATUS else closed.rcvd.code
        close = close_of(code if is_sendable(code) else CloseCode.BAD_GATEWAY, closed.rcvd.reason)
    elif closed.sent is not None and closed.sent.code == CloseCode.MESSAGE_TOO_BIG:  # it was over `max_message_bytes`
        close = Close(code=CloseCode.MESSAGE_TOO_BIG, reason="the upstream's message is too big")
    else:
        close = Close(code=CloseCode.BAD_GATEWAY, reason="the upstream connection was lost")
    return Ending(to_client=close, to_upstream=GOING_AWAY)


def refusal_of(error: Exception) -> Refusal:
    """Return the refusal for a failed upstream connection. It never contains the address, which may be internal."""
    if isinstance(error, TimeoutError):
        reason = "the upstream did not reply in time"
        return Refusal(status=504, close=Close(code=CloseCode.TRY_AGAIN_LATER, reason=reason))
    if isinstance(error, InvalidStatus):
        return _forwarded(error.response)
    reachable = not isinstance(error, OSError)
    reason = "the upstream's answer is not a WebSocket handshake" if reachable else "the upstream cannot be reached"
    return Refusal(status=502, close=Close(code=CloseCode.BAD_GATEWAY, reason=reason))


def _forwarded(response: Response) -> Refusal:
    """Return the refusal for an upstream that has refused the handshake.

    A status about the client's own request is the client's, with which it can decide whether to try again. Any other status
    is about the upstream or the proxy.
    """
    status = response.status_code
    reason = f"the upstream refused the connection (HTTP {status})"
    if not (400 <= status < 500 or status == HTTPStatus.SERVICE_UNAVAILABLE) or status in _OF_THE_PROXY:
        return Refusal(status=502, close=Close(code=CloseCode.BAD_GATEWAY, reason=reason))
    found = {name: response.headers.get_all(name) for name in _FORWARDED_HEADERS}
    headers = {name: ", ".join(values) for name, values in found.items() if values}
    return Refusal(status=status, close=Close(code=code_of_status(status), reason=reason), headers=headers)
