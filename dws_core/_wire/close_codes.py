"""Close codes (RFC 6455 §7.4): names, reason texts and meanings. `docs/generate.py` makes the docs table from them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from dws_core._errors import ConfigurationError

NO_STATUS: Final = 1005
"""Reported locally if a close frame had no code. Never sent (RFC 6455 §7.4.1)."""

ABNORMAL: Final = 1006
"""Reported locally if the connection ended without a close frame. Never sent (RFC 6455 §7.4.1)."""


class CloseCode(IntEnum):
    """Why a connection was closed. Clients reconnect after 4000-4499, and not after 4500-4999."""

    NORMAL = 1000
    GOING_AWAY = 1001
    UNSUPPORTED_DATA = 1003
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TOO_SLOW = 4000
    DRAINED = 4001
    TOKEN_EXPIRED = 4002
    NO_PONG = 4003
    DISCONNECTED = 4500
    FORBIDDEN = 4501
    PROTOCOL_ERROR = 4502
    FLOODING = 4503

    @property
    def reason(self) -> str:
        """The default reason of the close frame, at most 123 bytes (RFC 6455 §5.5)."""
        return _FACTS[self].reason

    @property
    def meaning(self) -> str:
        """A short description for the docs."""
        return _FACTS[self].meaning or _FACTS[self].reason

    @property
    def reconnect(self) -> bool:
        """Whether a client should reconnect."""
        return may_reconnect(self)

    @property
    def advice(self) -> str:
        """How or when a client should reconnect. Empty if there is nothing to add to `reconnect`."""
        return _FACTS[self].advice

    @property
    def is_sent(self) -> bool:
        """Whether this version sends the code. If False, it is reserved for a later version."""
        return _FACTS[self].sent


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    reason: str
    meaning: str = ""  # if empty, the reason
    reconnect: bool = True
    advice: str = ""
    sent: bool = True


_FACTS: Final = {
    CloseCode.NORMAL: _Facts(reason="", meaning="normal end", advice="if the client wants to"),
    CloseCode.GOING_AWAY: _Facts(reason="going away", advice="if the client wants to"),
    CloseCode.UNSUPPORTED_DATA: _Facts(
        reason="this subprotocol does not accept frames of this kind",
        meaning="text frame for a binary codec, or the reverse",
        reconnect=False,
    ),
    CloseCode.POLICY_VIOLATION: _Facts(reason="not authenticated, or origin not allowed", reconnect=False),
    CloseCode.MESSAGE_TOO_BIG: _Facts(
        reason="message too long", meaning="message over `message_bytes`", reconnect=False
    ),
    CloseCode.INTERNAL_ERROR: _Facts(reason="internal error", advice="with backoff"),
    CloseCode.SERVICE_RESTART: _Facts(reason="node restarts", meaning="node stops or restarts", advice="with jitter"),
    CloseCode.TRY_AGAIN_LATER: _Facts(
        reason="node is full", meaning="node is full, or the upstream of a proxy is too slow", advice="later"
    ),
    CloseCode.BAD_GATEWAY: _Facts(
        reason="bad gateway", meaning="upstream of a proxy is unavailable or lost", advice="with backoff"
    ),
    CloseCode.TOO_SLOW: _Facts(
        reason="too slow: the outbox is over its limit", meaning="client reads too slowly, over `outbox_bytes`"
    ),
    CloseCode.DRAINED: _Facts(
        reason="drained", meaning="connection is too old, over `connection_age_s`", advice="at once"
    ),
    CloseCode.TOKEN_EXPIRED: _Facts(reason="token expired", advice="with a new token"),
    CloseCode.NO_PONG: _Facts(reason="no answer to pings", sent=False),
    CloseCode.DISCONNECTED: _Facts(reason="disconnected by the application", reconnect=False),
    CloseCode.FORBIDDEN: _Facts(reason="forbidden", reconnect=False, sent=False),
    CloseCode.PROTOCOL_ERROR: _Facts(reason="protocol error", reconnect=False, sent=False),
    CloseCode.FLOODING: _Facts(reason="flooding", meaning="too many messages, over `flood_messages`", reconnect=False),
}

_LATER: Final = frozenset({408, 425, 429, 503})
"""HTTP statuses after which the same request may succeed later."""

_SENDABLE: Final = frozenset({*range(1000, 1015), *range(3000, 5000)} - {1004, NO_STATUS, ABNORMAL})

_FINAL: Final = frozenset(code for code, facts in _FACTS.items() if not facts.reconnect)


def may_reconnect(code: int) -> bool:
    """Return whether a client should reconnect after a close code.

    From 4000 on, the range decides, so clients need no table for new codes.
    """
    if code >= 4000:
        return code < 4500
    return code not in _FINAL


def reason_of(code: int) -> str:
    """Return the default reason of a code, or an empty text for a code that is not in `CloseCode`."""
    try:
        return CloseCode(code).reason
    except ValueError:
        return ""


def check_code(code: int) -> int:
    """Return a code that may be sent in a close frame: 1000 to 1014 without 1004 to 1006, or 3000 to 4999.

    Raises:
        ConfigurationError: The code may not be sent (RFC 6455 §7.4).
    """
    if not is_sendable(code):
        raise ConfigurationError(
            f"close code {code!r} may not be sent (RFC 6455 §7.4).", fix="use a CloseCode, or a code from 3000 to 4999"
        )
    return int(code)


def code_of_status(status: int) -> int:
    """Return the close code that replaces an HTTP status after the handshake is accepted.

    A client should not repeat a request that was its own fault (4xx, final), unless the status tells it to come later.
    """
    if status in _LATER:
        return CloseCode.TRY_AGAIN_LATER
    return CloseCode.INTERNAL_ERROR if status >= 500 else CloseCode.POLICY_VIOLATION


def is_sendable(code: int) -> bool:
    """Return whether a close frame may contain a code: 1000 to 1014 without 1004 to 1006, or 3000 to 4999."""
    return code in _SENDABLE
