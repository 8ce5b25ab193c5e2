"""The one table of close codes (RFC 6455 §7.4): for node, clients, docs and metrics."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class CloseCode(IntEnum):
    """Why a connection ends. 4000-4499: reconnect; 4500-4999: do not."""

    NORMAL = 1000
    GOING_AWAY = 1001
    UNSUPPORTED_DATA = 1003
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
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
        """The reason text of the close frame, below 123 bytes (RFC 6455 §5.5)."""
        return _REASONS[self]

    @property
    def reconnect(self) -> bool:
        """Whether a client should come back."""
        return may_reconnect(self)


_REASONS: Final = {
    CloseCode.NORMAL: "",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.UNSUPPORTED_DATA: "this subprotocol does not take frames of this kind",
    CloseCode.POLICY_VIOLATION: "not authenticated, or origin not allowed",
    CloseCode.MESSAGE_TOO_BIG: "message too long",
    CloseCode.INTERNAL_ERROR: "internal error",
    CloseCode.SERVICE_RESTART: "node restarts",
    CloseCode.TRY_AGAIN_LATER: "node is full",
    CloseCode.TOO_SLOW: "too slow: the outbox is over its limit",
    CloseCode.DRAINED: "drained",
    CloseCode.TOKEN_EXPIRED: "token expired",
    CloseCode.NO_PONG: "no answer to pings",
    CloseCode.DISCONNECTED: "disconnected by the application",
    CloseCode.FORBIDDEN: "forbidden",
    CloseCode.PROTOCOL_ERROR: "protocol error",
    CloseCode.FLOODING: "flooding",
}

_FINAL: Final = frozenset({CloseCode.POLICY_VIOLATION, CloseCode.UNSUPPORTED_DATA, CloseCode.MESSAGE_TOO_BIG})


def may_reconnect(code: int) -> bool:
    """Say whether a client should reconnect after this close code; it needs no table for 4000-4999."""
    if code >= 4000:
        return code < 4500
    return code not in _FINAL


def reason_of(code: int) -> str:
    """Return the reason text of a code; empty for one that is not ours."""
    try:
        return CloseCode(code).reason
    except ValueError:
        return ""
