"""How a `connect` block ends: from the exception that leaves it to a close code. Pure functions and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException, WebSocketException
from starlette.websockets import WebSocketDisconnect

from dws_core._errors import ConnectionClosed
from dws_core._wire.close_codes import CloseCode, code_of_status, is_sendable

_INVALID: Final = (RequestValidationError, WebSocketRequestValidationError)
_ANSWERED: Final = (WebSocketException, HTTPException, *_INVALID)
_LEFT: Final = (ConnectionClosed, WebSocketDisconnect)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEnding:
    """The end of a block.

    Attributes:
        code: Close code for the client.
        reason: Reason for the client. If None, the standard text of the code.
        error: The exception behind the end. None if the block has ended normally.
    """

    code: int
    reason: str | None
    error: BaseException | None

    @property
    def is_refusal(self) -> bool:
        """Whether Starlette handles the exception by closing the connection."""
        return isinstance(self.error, WebSocketException)

    @property
    def left(self) -> bool:
        """Whether the exception only reports that the client has disconnected."""
        return isinstance(self.error, _LEFT)


def ending_of(error: BaseException | None) -> BlockEnding:
    """Return how a block with this exception ends.

    Refusals in the style of FastAPI determine the code. An exception that Starlette would answer with an HTTP response
    becomes a `WebSocketException`, because it is too late for a response.
    """
    cause = None if error is None else _cause_of(error)
    if cause is None:
        return BlockEnding(code=CloseCode.NORMAL, reason=None, error=None)
    if isinstance(cause, WebSocketException):
        code = cause.code if is_sendable(cause.code) else CloseCode.INTERNAL_ERROR
        return BlockEnding(code=code, reason=str(cause.reason) if cause.reason else None, error=cause)
    if isinstance(cause, HTTPException):
        return _refused(cause, code_of_status(cause.status_code), str(cause.detail))
    if isinstance(cause, _INVALID):
        return _refused(cause, CloseCode.POLICY_VIOLATION, "invalid data")
    code = CloseCode.INTERNAL_ERROR if isinstance(cause, Exception) else CloseCode.GOING_AWAY
    return BlockEnding(code=code, reason=None, error=cause)


def has_own_handler(error: BaseException | None, scope: Mapping[str, Any]) -> bool:
    """Return whether the application has registered a handler for an exception, which then closes the connection."""
    if isinstance(error, _ANSWERED):
        return False
    handlers, _ = scope.get("starlette.exception_handlers", ({}, {}))
    return any(kind in handlers for kind in type(error).__mro__)


def _refused(cause: Exception, code: int, reason: str) -> BlockEnding:
    error = WebSocketException(code, reason)
    error.__cause__ = cause
    return BlockEnding(code=code, reason=reason, error=error)


def _cause_of(error: BaseException) -> BaseException:
    """Return the only exception of a group, for example of a task group, or the exception itself.

    Exceptions that report the disconnect of the client count only if there are no others.
    """
    leaves = list(_leaves(error))
    others = [leaf for leaf in leaves if not isinstance(leaf, _LEFT)] or leaves[:1]
    return others[0] if len(others) == 1 else error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from _leaves(inner)
