"""Errors that refuse a client. Starlette and FastAPI handle them like their own exceptions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final, TypeVar

from starlette.exceptions import HTTPException
from starlette.exceptions import WebSocketException as StarletteWebSocketException
from starlette.websockets import WebSocket, WebSocketState

from dws_core._auth.refused_by_app import reports_of
from dws_core._errors import (
    AuthenticationFailed,
    DWSError,
    InvalidMessage,
    OriginNotAllowed,
    StarletteRefusal,
    WebSocketException,
)
from dws_core._limits.token_bucket import TokenBucket
from dws_core._wire.close_codes import CloseCode

logger = logging.getLogger("dws")

E = TypeVar("E", bound=WebSocketException)

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


class _Made:
    """Marks an error of the functions below, which have logged it.

    Attributes:
        refused_for: Reason by which refusals are counted.
    """

    refused_for: str = "other"


class _HTTP(_Made, HTTPException):
    """A refusal before accept: an HTTP response instead of the upgrade (RFC 6455 §4.2.2).

    It is the first base of each class, because Starlette handles an error by the first of its classes with a handler.
    """

    status: ClassVar[int]

    def __init__(self, message: str, **values: Any) -> None:
        super(HTTPException, self).__init__(message, **values)  # our own error, which is the next base
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else None
        HTTPException.__init__(self, self.status, self.message, headers)  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return super(HTTPException, self).__str__()


class _AuthHTTP(_HTTP, AuthenticationFailed):
    status = 401


class _OriginHTTP(_HTTP, OriginNotAllowed):
    status = 403


class _InvalidHTTP(_HTTP, InvalidMessage):
    status = 400


class _AuthClose(_Made, AuthenticationFailed): ...


class _OriginClose(_Made, OriginNotAllowed): ...


class _InvalidClose(_Made, InvalidMessage): ...


class _BusyHTTP(_HTTP, WebSocketException):
    status = 503


class _CrowdHTTP(_HTTP, WebSocketException):
    status = 429


class _BusyClose(_Made, WebSocketException, StarletteRefusal):
    close_code = CloseCode.TRY_AGAIN_LATER


class _StoppedClose(_Made, WebSocketException, StarletteRefusal):
    close_code = CloseCode.SERVICE_RESTART


def can_answer(websocket: WebSocket) -> bool:
    """Return whether a handshake can be refused with an HTTP response. If not, a close event makes the server refuse it."""
    return (
        websocket.application_state is WebSocketState.CONNECTING
        and "websocket.http.response" in websocket.scope.get("extensions", {})
    )


def log_refusal(websocket: WebSocket, reason: str) -> None:
    """Log one line for a refused handshake. The reason has no secrets."""
    headers = websocket.headers
    reports_of(websocket.scope).add("line")
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
        if not isinstance(error, _Made):
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


def _counted(error: E, reason: str) -> E:
    """Return the error with the reason by which it is counted."""
    error.refused_for = reason  # type: ignore[attr-defined]  # each of them is a _Made
    return error


def _log_limit(websocket: WebSocket, message: str, reason: str) -> None:
    """Log a refusal for a limit if it is the first one in a minute."""
    reports_of(websocket.scope).add("line")  # also if it is left out
    allowance = _busy_allowances.setdefault(reason, TokenBucket(1 / _BUSY_EVERY_S, 1, now=0.0))
    if not allowance.take(time.monotonic()):
        log_refusal(websocket, f"{message}; logged at most once per minute")


def refuse_authentication(
    websocket: WebSocket, message: str, *, fix: str = "", reason: str = "credentials"
) -> AuthenticationFailed:
    """Return the error to raise: HTTP 401 before accept, close code 1008 after it."""
    log_refusal(websocket, message)
    return _counted((_AuthHTTP if can_answer(websocket) else _AuthClose)(message, fix=fix), reason)


def refuse_origin(websocket: WebSocket, origin: str, host: str) -> OriginNotAllowed:
    """Return the error to raise: HTTP 403 before accept, close code 1008 after it."""
    log_refusal(websocket, "this origin is not allowed")
    return _counted((_OriginHTTP if can_answer(websocket) else _OriginClose)(origin, host=host), "origin")


def refuse_malformed(websocket: WebSocket, message: str, *, fix: str = "") -> InvalidMessage:
    """Return the error to raise: HTTP 400 before accept, close code 1008 after it."""
    log_refusal(websocket, message)
    return _counted((_InvalidHTTP if can_answer(websocket) else _InvalidClose)(message, fix=fix), "malformed")


def refuse_busy(websocket: WebSocket, message: str, *, reason: str) -> WebSocketException:
    """Return the error to raise: HTTP 503 before accept, close code 1013 after it. Logged once per minute."""
    _log_limit(websocket, message, reason)
    return _counted((_BusyHTTP if can_answer(websocket) else _BusyClose)(message), reason)


def refuse_crowd(websocket: WebSocket, message: str, *, reason: str) -> WebSocketException:
    """Return the error to raise: HTTP 429 before accept, close code 1013 after it. Logged once per minute."""
    _log_limit(websocket, message, reason)
    return _counted((_CrowdHTTP if can_answer(websocket) else _BusyClose)(message), reason)


def refuse_stopped(websocket: WebSocket, message: str) -> WebSocketException:
    """Return the error to raise after accept if the node has stopped in the meantime: close code 1012."""
    log_refusal(websocket, message)
    return _counted(_StoppedClose(message), "stopped")
