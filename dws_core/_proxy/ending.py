"""What each side is told when a proxied connection ends or cannot begin: decided without waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from websockets.exceptions import ConnectionClosed, InvalidStatus

if TYPE_CHECKING:
    from starlette.types import Message

_MAX_REASON_BYTES: Final = 123  # RFC 6455 §5.5: a control frame has 125 bytes, the code takes two


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """What goes into a close frame."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What each side is told at the end; closing a side that has gone already does nothing."""

    to_client: Close
    to_upstream: Close


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a client is told that cannot be served: an HTTP status before the handshake, a close frame after it."""

    status: int
    close: Close


GOING_AWAY: Final = Close(code=1001)
STOPPED: Final = Ending(to_client=GOING_AWAY, to_upstream=GOING_AWAY)
BROKEN: Final = Ending(
    to_client=Close(code=1011, reason="the proxy failed"), to_upstream=Close(code=1011, reason="the proxy failed")
)
CLIENT_LOST: Final = Ending(
    to_client=GOING_AWAY, to_upstream=Close(code=1001, reason="the client's connection was lost")
)
CLIENT_STALLED: Final = Ending(
    to_client=Close(code=1008, reason="the client reads too slowly"),
    to_upstream=Close(code=1001, reason="the client stopped reading"),
)
UPSTREAM_STALLED: Final = Ending(
    to_client=Close(code=1013, reason="the upstream stopped reading"), to_upstream=GOING_AWAY
)
TOO_BIG: Final = Ending(to_client=Close(code=1009, reason="the message is too big"), to_upstream=GOING_AWAY)
OTHER_SUBPROTOCOL: Final = Ending(
    to_client=Close(code=1014, reason="the upstream does not speak the subprotocol"), to_upstream=GOING_AWAY
)


def is_sendable(code: int) -> bool:
    """Tell whether a close code may stand in a close frame (RFC 6455 §7.4.1 and the registry it founded)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_of(code: int, reason: str) -> Close:
    """Make a close frame's content; the reason is cut at a character to what a control frame holds."""
    fitting = reason.encode(errors="replace")[:_MAX_REASON_BYTES]
    return Close(code=code, reason=fitting.decode(errors="ignore"))


def client_left(event: Message) -> Ending:
    """Read the client's end from `websocket.disconnect`."""
    code = event.get("code", 1005)
    if code == 1006 or (code == 1005 and "reason" not in event):
        # uvicorn says 1005 for a lost connection too, but gives a reason only where a close frame came.
        return CLIENT_LOST
    if code == 1005:  # a close frame without a code
        return Ending(to_client=GOING_AWAY, to_upstream=Close(code=1000))
    close = close_of(code if is_sendable(code) else 1001, event.get("reason") or "")
    return Ending(to_client=close, to_upstream=close)


def upstream_left(closed: ConnectionClosed) -> Ending:
    """Read the upstream's end from the exception that `recv` raises after the last message."""
    if closed.rcvd is not None:
        code = 1000 if closed.rcvd.code == 1005 else closed.rcvd.code
        close = close_of(code if is_sendable(code) else 1014, closed.rcvd.reason)
    elif closed.sent is not None and closed.sent.code == 1009:  # we gave up on a message over `max_message_bytes`
        close = Close(code=1009, reason="the upstream's message is too big")
    else:
        close = Close(code=1014, reason="the upstream connection was lost")
    return Ending(to_client=close, to_upstream=GOING_AWAY)


def refusal_of(error: Exception) -> Refusal:
    """Choose what the client hears when the upstream cannot be had. Never the address: it may be internal."""
    if isinstance(error, TimeoutError):
        return Refusal(status=504, close=Close(code=1013, reason="the upstream did not answer in time"))
    reason = "the upstream's answer is not a WebSocket handshake"
    if isinstance(error, InvalidStatus):
        reason = f"the upstream refused the connection (HTTP {error.response.status_code})"
    elif isinstance(error, OSError):
        reason = "the upstream cannot be reached"
    return Refusal(status=502, close=Close(code=1014, reason=reason))
