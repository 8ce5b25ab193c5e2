"""Why a session ended, as a few words and as an error."""

from __future__ import annotations

from dws_core._errors import BrokerClosed, BrokerError, BrokerMisconfigured, BrokerUnavailable
from dws_core._log.stream.wire import WireError, WireUnusable


def leaf(error: BaseException) -> BaseException:
    """Return the first error in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def reason_of(error: BaseException) -> str:
    """Return a few words about why a session ended."""
    if isinstance(error, TimeoutError):
        return "the broker does not answer"
    return error.reason if isinstance(error, WireError) else repr(error)


def is_expected(error: BaseException) -> bool:
    """Return whether an error is a failure of the broker, not a defect of the wire."""
    return isinstance(error, WireError | BrokerError | TimeoutError)


def closed() -> BrokerClosed:
    """Return the error for a call outside `start` and `stop`."""
    return BrokerClosed("the broker is not started.", fix="call start() first, and nothing after stop()")


def unavailable(where: str, why: str) -> BrokerUnavailable:
    """Return the error for a call that the broker cannot serve now."""
    return BrokerUnavailable(f"{where} is unavailable: {why}.", fix="check the broker, or try again")


def startup_error(where: str, error: BaseException) -> BrokerError:
    """Return the error of `start` for the reason why the first session ended."""
    if isinstance(error, BrokerError):
        return error
    found: BrokerError = unavailable(where, reason_of(error))
    if isinstance(error, WireUnusable):
        found = BrokerMisconfigured(f"{where} cannot be used: {error.reason}.", fix="change its settings")
    found.__cause__ = error
    return found
