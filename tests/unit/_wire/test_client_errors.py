"""What clients are told."""

from __future__ import annotations

import pytest

from dws_core import (
    BrokerClosed,
    BrokerOverloaded,
    BrokerUnavailable,
    CodecError,
    InvalidFilter,
    InvalidMessage,
    InvalidSubscription,
    InvalidTopic,
    PayloadTooLarge,
    PublishOutcomeUnknown,
)
from dws_core._wire.client_errors import INTERNAL, Refused, describe


@pytest.mark.parametrize(
    ("error", "code", "temporary"),
    [
        (Refused("forbidden", "no"), "forbidden", False),
        (InvalidFilter("#a", position=0, reason="r"), "invalid-filter", False),
        (InvalidTopic("+", position=0, reason="r"), "invalid-topic", False),
        (InvalidSubscription("no"), "invalid-filter", False),
        (InvalidMessage("no"), "invalid-message", False),
        (CodecError("json", "no"), "invalid-message", False),
        (PayloadTooLarge(2, 1), "too-large", False),
        (BrokerClosed("no"), "unavailable", True),
        (BrokerUnavailable("redis://secret-host is down"), "unavailable", True),
        (BrokerOverloaded("no"), "overloaded", True),
        (PublishOutcomeUnknown("t"), "outcome-unknown", True),
    ],
)
def test_each_error_has_its_code(error: Exception, code: str, temporary: bool) -> None:
    told = describe(error)
    assert told is not None
    assert (told.code, told.temporary) == (code, temporary)
    assert "secret-host" not in told.message


def test_an_unknown_error_is_not_described() -> None:
    assert describe(ValueError("secret")) is None


def test_the_message_has_an_id_and_a_retry_only_where_there_is_one() -> None:
    assert INTERNAL.to_message() == {
        "type": "error",
        "code": "internal",
        "message": "the node failed to process this request",
        "temporary": False,
    }
    told = describe(BrokerUnavailable("down", retry_after_s=1.23456))
    assert told is not None
    assert told.to_message("x")["retry_in_s"] == 1.235
    assert told.to_message("x")["id"] == "x"
