"""Error texts and attributes."""

from __future__ import annotations

import inspect

import dws_core
from dws_core import _errors
from dws_core._wire.client_errors import Refused


def _classes() -> list[type[dws_core.DWSError]]:
    return [c for c in vars(_errors).values() if inspect.isclass(c) and issubclass(c, dws_core.DWSError)]


def test_every_error_has_unique_slug_and_is_public() -> None:
    slugs = [c.slug for c in [*_classes(), Refused]]
    assert len(slugs) == len(set(slugs))
    assert {c.__name__ for c in _classes()} <= set(dws_core.__all__)


def test_error_text_ends_with_fix_and_slug() -> None:
    error = dws_core.ConfigurationError("x is wrong.", fix="make it right")
    assert str(error) == "x is wrong. Fix: make it right [dws:configuration]"
    assert str(dws_core.DWSError("plain")) == "plain [dws:error]"


def test_error_values_are_attributes() -> None:
    topic = dws_core.InvalidTopic("a" * 100, position=3, reason="r", fix="f")
    assert (topic.position, topic.reason, topic.text) == (3, "r", "a" * 100)
    assert "..." in str(topic)
    assert dws_core.BrokerUnavailable("x", retry_after_s=2).retry_after_s == 2
    assert dws_core.PublishOutcomeUnknown("t").topic == "t"
    large = dws_core.PayloadTooLarge(5, 4)
    assert (large.size_bytes, large.limit_bytes) == (5, 4)
    assert "5 bytes" in str(large)
    assert "4 bytes" in str(large)
    assert dws_core.CodecError("json", "x").codec == "json"
    closed = dws_core.ConnectionClosed(1001, "bye", connection=1)
    assert (closed.code, closed.reason, closed.connection) == (1001, "bye", 1)
    origin = dws_core.OriginNotAllowed("https://x", host="h")
    assert (origin.origin, origin.close_code) == ("https://x", 1008)
