"""Spec records reject invalid fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from dws_core import ConfigurationError
from dws_core.plugin import AuthenticatorSpec, BrokerCapabilities, BrokerSpec, CodecSpec, TopicMatcherSpec

_BROKER: dict[str, Any] = {
    "schemes": ("x",),
    "load": object,
    "capabilities": BrokerCapabilities(cross_process=True),
    "summary": "X.",
}
_CODEC: dict[str, Any] = {"name": "x", "load": object, "content_type": "a/b", "summary": "X."}
_NAMED: dict[str, Any] = {"name": "x", "load": object, "summary": "X."}


@dataclass
class _NoDefault:
    level: int


@pytest.mark.parametrize(
    ("spec", "good", "field", "bad"),
    [
        (BrokerSpec, _BROKER, "schemes", ()),
        (BrokerSpec, _BROKER, "schemes", "redis"),
        (BrokerSpec, _BROKER, "schemes", ("Redis",)),
        (BrokerSpec, _BROKER, "schemes", (5,)),
        (BrokerSpec, _BROKER, "capabilities", None),
        (BrokerSpec, _BROKER, "load", None),
        (BrokerSpec, _BROKER, "summary", " "),
        (CodecSpec, _CODEC, "name", "JSON"),
        (CodecSpec, _CODEC, "content_type", "json"),
        (TopicMatcherSpec, _NAMED, "name", ""),
        (AuthenticatorSpec, _NAMED, "name", None),
        (AuthenticatorSpec, _NAMED, "verify_token", True),
        (CodecSpec, _CODEC, "options", {}),
        (TopicMatcherSpec, _NAMED, "options", str),
        (AuthenticatorSpec, _NAMED, "options", _NoDefault),
    ],
)
def test_wrong_field_is_named_with_expected_value(spec: Any, good: dict[str, Any], field: str, bad: Any) -> None:
    assert spec(**good).names == ("x",)
    spec(**good).check()
    with pytest.raises(ConfigurationError, match=rf"{spec.__name__}\.{field} is .*expected.*Fix"):
        spec(**{**good, field: bad}).check()
