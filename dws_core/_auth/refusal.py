"""Errors that refuse a client. Starlette and FastAPI handle them like their own exceptions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.exceptions import HTTPException
from starlette.exceptions import WebSocketException as StarletteWebSocketException
from starlette.websockets import WebSocket, WebSocketState

from dws_core._errors import AuthenticationFailed, DWSError, InvalidMessage, OriginNotAllowed, WebSocketException
from dws_core._limits.token_bucket import TokenBucket
from dws_core._wire.close_codes import CloseCode

logger = logging.getLogger("dws")

_LINES_PER_S: Final = 10
"""Maximum number of refused handshakes that are logged per second."""

_BUSY_EVERY_S: Final = 60.0
"""Time in seconds between two lines about refusals for the same limit, which come in thousands."""

_SHOWN: Final = 200
"""Maximum number of characters of a header that are logged."""


class _Lines:
    """The lines about refused handshakes, limited in their rate."""

    def __init__(self) -> None:
        self.allowance = TokenBucket(_LINES_PER_S, _LINES_PER_S, now=0.0)
        self.left_out = 0


_lines = _Lines()
_busy_allowances: dict[str, TokenBucket] = {}


class _DeniedHTTP(HTTPException):
    """A refusal before accept: an HTTP response instead of the upgrade (RFC 6455 §4.2.2)."""

    def __init__(self, message: str) -> None:
        """Set the text, which our own error classes pass on. `_init_framework` sets status and headers."""
        Exception.__init__(self, message)


class _DeniedClose(StarletteWebSocketException):
    """A refusal after accept, or on a server without denial responses: a close frame, or HTTP 403."""

    def __init__(self, message: str) -> None:
        """Set the text, which our own error classes pass on. `_init_framework` sets code and reason."""
        Exception.__init__(self, message)


class _Mixed(WebSocketException):
    """A refusal that is both one of our errors and an exception that the framework handles.

    Attributes:
        refused_for: Reason by which refusals are counted.
    """

    refused_for: str = "other"

    def _init_framework(self, *, status: int, code: int, text: str) -> None:
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        if isinstance(self, HTTPException):
            HTTPException.__init__(self, status, text, headers)
        elif isinstance(self, StarletteWebSocketException):
            StarletteWebSocketException.__init__(self, code, text[:120])

    def __str__(self) -> str:
        return WebSocketException.__str__(self)


class _AuthHTTP(_Mixed, AuthenticationFailed, _DeniedHTTP): ...


class _AuthClose(_Mixed, AuthenticationFailed, _DeniedClose): ...


class _OriginHTTP(_Mixed, OriginNotAllowed, _DeniedHTTP): ...


class _OriginClose(_Mixed, OriginNotAllowed, _DeniedClose): ...


class _InvalidHTTP(_Mixed, InvalidMessage, _DeniedHTTP): ...


class _InvalidClose(_Mixed, InvalidMessage, _DeniedClose): ...


class _RefusedHTTP(_Mixed, _DeniedHTTP): ...


class _RefusedClose(_Mixed, _DeniedClose): ...


def _can_answer(websocket: WebSocket) -> bool:
    return (
        websocket.application_state is WebSocketState.CONNECTING
        and "websocket.http.response" in websocket.scope.get("extensions", {})
    )


def log_refusal(websocket: WebSocket, reason: str) -> None:
    """Log one line for a refused handshake. The reason has no secrets."""
    headers = websocket.headers
    log_refused_client(websocket.client, reason, origin=headers.get("origin", ""), host=headers.get("host", ""))


def log_refused_client(client: tuple[str, int] | None, reason: str, *, origin: str = "", host: str = "") -> None:
    """Log one line for a refused handshake, or count it if there are too many lines."""
    if _lines.allowance.take(time.monotonic()):
        _lines.left_out += 1
        return
    more, _lines.left_out = _lines.left_out, 0
    logger.info(
        "refused the client %s: %s (origin %r, host %r)%s",
        "unknown" if client is None else f"{client[0]}:{client[1]}",
        reason,
        origin[:_SHOWN],
        host[:_SHOWN],
        f"; {more} before it have no line" if more else "",
    )


@contextmanager
def logged_refusal(websocket: WebSocket) -> Iterator[None]:
    """Log an error that ends a handshake, unless one of the functions below has made it and logged it."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, _Mixed):
            log_refusal(websocket, _reason_of(error))
        raise


def _reason_of(error: Exception) -> str:
    """Return the reason for the log. The text of an unknown exception may have secrets."""
    match error:
        case DWSError():
            return error.message
        case HTTPException():
            return f"HTTP {error.status_code}, {error.detail}"
        case StarletteWebSocketException():
            return f"close code {error.code}, {error.reason}"
    return f"the check of the handshake failed with {type(error).__name__}"


def _is_news(reason: str) -> bool:
    """Return whether a refusal for a limit should be logged: the first one in a minute."""
    allowance = _busy_allowances.setdefault(reason, TokenBucket(1 / _BUSY_EVERY_S, 1, now=0.0))
    return not allowance.take(time.monotonic())


def refuse_authentication(
    websocket: WebSocket, message: str, *, fix: str = "", reason: str = "credentials"
) -> AuthenticationFailed:
    """Return the error to raise: HTTP 401 before accept, close code 1008 after it."""
    log_refusal(websocket, message)
    error = (_AuthHTTP if _can_answer(websocket) else _AuthClose)(message, fix=fix)
    error._init_framework(status=401, code=CloseCode.POLICY_VIOLATION, text=message)
    error.refused_for = reason
    return error


def refuse_origin(websocket: WebSocket, origin: str, host: str) -> OriginNotAllowed:
    """Return the error to raise: HTTP 403 before accept, close code 1008 after it."""
    log_refusal(websocket, "this origin is not allowed")
    error = (_OriginHTTP if _can_answer(websocket) else _OriginClose)(origin, host=host)
    error._init_framework(status=403, code=CloseCode.POLICY_VIOLATION, text="this origin is not allowed")
    error.refused_for = "origin"
    return error


def refuse_malformed(websocket: WebSocket, message: str, *, fix: str = "") -> InvalidMessage:
    """Return the error to raise: HTTP 400 before accept, close code 1008 after it."""
    log_refusal(websocket, message)
    error = (_InvalidHTTP if _can_answer(websocket) else _InvalidClose)(message, fix=fix)
    error._init_framework(status=400, code=CloseCode.POLICY_VIOLATION, text=message)
    error.refused_for = "malformed"
    return error


def refuse_busy(websocket: WebSocket, message: str, *, reason: str, status: int = 503) -> WebSocketException:
    """Return the error to raise: an HTTP status before accept, close code 1013 after it. Logged once per minute."""
    if _is_news(reason):
        log_refusal(websocket, f"{message}; logged at most once per minute")
    error = (_RefusedHTTP if _can_answer(websocket) else _RefusedClose)(message)
    error._init_framework(status=status, code=CloseCode.TRY_AGAIN_LATER, text=message)
    error.refused_for = reason
    return error


def refuse_stopped(websocket: WebSocket, message: str) -> WebSocketException:
    """Return the error to raise after accept if the node has stopped in the meantime: close code 1012."""
    log_refusal(websocket, message)
    error = _RefusedClose(message)
    error._init_framework(status=503, code=CloseCode.SERVICE_RESTART, text=message)
    error.refused_for = "stopped"
    return error
