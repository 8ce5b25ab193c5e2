"""`Limits`: its defaults and the values it accepts."""

from __future__ import annotations

import re
from dataclasses import fields
from inspect import cleandoc
from typing import Any

import pytest

from dws_core import ConfigurationError, Limits
from dws_core._limits.limits import OVER_LIMIT


def test_defaults_match_protocol() -> None:
    limits = Limits()
    assert (limits.message_bytes, limits.filters, limits.messages_per_s, limits.burst) == (65_536, 128, 100.0, 200)
    assert (limits.outbox_bytes, limits.connections) == (1_048_576, None)


@pytest.mark.parametrize("wrong", [{"filters": 0}, {"burst": -1}, {"burst": None}, {"close_timeout_s": 0}])
def test_invalid_limit_is_rejected_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Limits(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"filters": "5"}, {"burst": 1.5}, {"burst": True}, {"idle_s": float("nan")}, {"ping_s": "20"}]
)
def test_limit_of_wrong_type_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"Limits\({next(iter(wrong))}="):
        Limits(**wrong)


def test_none_disables_limit_and_zero_grace_is_valid() -> None:
    assert Limits(filters=None, handler_grace_s=0).filters is None


def test_unknown_slow_consumer_policy_is_rejected() -> None:
    assert Limits(slow_consumer="keep-latest").slow_consumer == "keep-latest"
    with pytest.raises(ConfigurationError, match=r"'drop-all'.*close, drop-oldest, drop-newest, keep-latest"):
        Limits(slow_consumer="drop-all")  # type: ignore[arg-type]  # as a value of a configuration file


def test_limits_are_documented_in_order() -> None:
    names = [field.name for field in fields(Limits)]
    assert list(OVER_LIMIT) == names
    assert re.findall(r"^ {4}(\w+): ", cleandoc(str(Limits.__doc__)), re.MULTILINE)[: len(names)] == names


def test_fix_offers_none_only_for_optional_limits() -> None:
    with pytest.raises(ConfigurationError, match="or None for no limit"):
        Limits(filters=0)
    with pytest.raises(ConfigurationError, match=r"give a positive number \["):
        Limits(burst=0)
    with pytest.raises(ConfigurationError, match="must be zero or positive"):
        Limits(handler_grace_s=-1)
