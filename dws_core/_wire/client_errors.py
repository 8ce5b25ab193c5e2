"""What a client is told when something fails: a code, a short text, whether to try again. Never a traceback or URL."""

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
    """A client's request is refused for a reason of the protocol.

    Attributes:
        code: The error's code in the protocol.
        temporary: Whether trying again makes sense.
        retry_in_s: When, in seconds; None: not known.
    """

    slug = "refused"

    def __init__(self, code: str, message: str, *, temporary: bool = False, retry_in_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.temporary = temporary
        self.retry_in_s = retry_in_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientError:
    """The members of an `error` message."""

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
    code="unavailable", message="the broker cannot be reached; nothing was stored", temporary=True
)


def describe(error: BaseException) -> ClientError | None:
    """Return what to tell the client; None for an error that is not the client's and must be logged."""
    match error:
        case Refused():
            return ClientError(
                code=error.code, message=error.message, temporary=error.temporary, retry_in_s=error.retry_in_s
            )
        case PublishOutcomeUnknown():
            text = "the broker did not answer in time; the message may be stored: repeat it only with the same key"
            return ClientError(code="outcome-unknown", message=text, temporary=True)
        case BrokerOverloaded():
            return ClientError(
                code="overloaded", message="the publish queue is full; nothing was stored", temporary=True
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


INTERNAL = ClientError(code="internal", message="the node failed to carry this out", temporary=False)
"""What a client is told of any other failure."""
