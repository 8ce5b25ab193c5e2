"""The errors that clients receive: a code, a short text, whether to retry. They never contain a traceback or a URL."""

from __future__ import annotations

from dataclasses import dataclass

from dws_core._errors import (
    BrokerClosed,
    BrokerOverloaded,
    BrokerUnavailable,
    CodecError,
    DWSError,
    InvalidFilter,
    InvalidMessage,
    InvalidSubscription,
    InvalidSubscriptionMessage,
    InvalidTopic,
    PayloadTooLarge,
    PublishOutcomeUnknown,
)


class Refused(DWSError):
    """A client's request was refused for a reason that the protocol defines.

    Attributes:
        code: Code of the error in the protocol.
        temporary: Whether the client may retry.
        retry_in_s: Time to wait before the retry, in seconds. None if unknown.
    """

    slug = "refused"

    def __init__(self, code: str, message: str, *, temporary: bool = False, retry_in_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.temporary = temporary
        self.retry_in_s = retry_in_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientError:
    """The members of an `error` message.

    Attributes:
        code: Code of the error in the protocol.
        message: One sentence for people.
        temporary: Whether the client may retry.
        retry_in_s: Time to wait before the retry, in seconds. None if unknown.
    """

    code: str
    message: str
    temporary: bool = False
    retry_in_s: float | None = None


_CODES: tuple[tuple[type[DWSError], str], ...] = (
    (InvalidFilter, "invalid-filter"),
    (InvalidTopic, "invalid-topic"),
    (InvalidSubscription, "invalid-filter"),
    (InvalidSubscriptionMessage, "invalid-message"),
    (InvalidMessage, "invalid-message"),
    (CodecError, "invalid-message"),
    (PayloadTooLarge, "too-large"),
)

_UNAVAILABLE = ClientError(
    code="unavailable", message="the broker cannot be reached, so nothing was stored", temporary=True
)


def describe(error: BaseException) -> ClientError | None:
    """Return the error for the client, or None for an internal failure, which must be logged."""
    match error:
        case Refused():
            return ClientError(
                code=error.code, message=error.message, temporary=error.temporary, retry_in_s=error.retry_in_s
            )
        case PublishOutcomeUnknown():
            text = "the broker did not reply in time. The message may be stored. Repeat it only with the same key"
            return ClientError(code="outcome-unknown", message=text, temporary=True)
        case BrokerOverloaded():
            return ClientError(
                code="overloaded", message="the publish queue is full, so nothing was stored", temporary=True
            )
        case BrokerUnavailable(retry_after_s=retry_after_s):
            return ClientError(
                code=_UNAVAILABLE.code, message=_UNAVAILABLE.message, temporary=True, retry_in_s=retry_after_s
            )
        case BrokerClosed():
            return _UNAVAILABLE
    for cls, code in _CODES:
        if isinstance(error, cls):
            return ClientError(code=code, message=error.message)
    return None


INTERNAL = ClientError(code="internal", message="the node failed to process this request", temporary=False)
"""The error for every other failure."""
