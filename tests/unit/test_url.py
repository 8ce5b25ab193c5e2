"""Broker URLs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from dws_core import BrokerURL, InvalidBrokerURL


@dataclass(frozen=True)
class _Options:
    wait_s: float = 1.0
    size_bytes: int = 10
    count: int = 1
    ratio: float = 0.5
    on: bool = True
    mode: Literal["a", "b"] = "a"
    name: str | None = None
    password: str = ""


def test_all_parts_are_parsed() -> None:
    url = BrokerURL.parse("REDIS://us%40er:p%3Aw@h1:1,[::1]:2,h3/0%2F1?count=2&name=x")
    assert (url.scheme, url.username, url.password) == ("redis", "us@er", "p:w")
    assert url.hosts == (("h1", 1), ("::1", 2), ("h3", None))
    assert (url.path, url.name, dict(url.options)) == ("0/1", "h1", {"count": "2", "name": "x"})


def test_password_is_never_shown() -> None:
    url = BrokerURL.parse("redis://user:hunter2@h:1/0?password=hunter2&count=1")
    assert str(url) == "redis://user:***@h:1/0?password=***&count=1"
    assert "hunter2" not in repr(url)
    assert str(BrokerURL.parse("memory://")) == "memory://"
    assert str(BrokerURL.parse("x://[::1]:5")) == "x://[::1]:5"
    assert BrokerURL.parse("memory://").name == ""


@pytest.mark.parametrize(
    "text", ["", "memory", "1x://", "://h", "x://h:0", "x://h:port", "x://h:70000", "x://h?a", "x://h?a=1&a=2"]
)
def test_malformed_url_is_rejected_with_fix(text: str) -> None:
    with pytest.raises(InvalidBrokerURL, match="Fix:"):
        BrokerURL.parse(text)


@pytest.mark.parametrize("url", [None, 5, b"memory://"])
def test_url_that_is_no_text_is_refused(url: Any) -> None:
    """For example an environment variable that is not set."""
    with pytest.raises(InvalidBrokerURL, match="expected a text"):
        BrokerURL.parse(url)


def test_error_masks_password() -> None:
    with pytest.raises(InvalidBrokerURL) as caught:
        BrokerURL.parse("no scheme:hunter2@host" + "x" * 80)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("wait_s=500ms", 0.5),
        ("wait_s=2m", 120.0),
        ("wait_s=3", 3.0),
        ("size_bytes=64KiB", 65_536),
        ("size_bytes=1MB", 1_000_000),
        ("count=7", 7),
        ("ratio=0.25", 0.25),
        ("on=No", False),
        ("on=1", True),
        ("mode=b", "b"),
        ("name=none", None),
        ("name=x", "x"),
    ],
)
def test_options_are_typed_and_have_units(option: str, value: Any) -> None:
    options = BrokerURL.parse(f"x://h?{option}").read_options(_Options)
    assert getattr(options, option.partition("=")[0]) == value


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("wait_s=soon", "a duration such as 500ms"),
        ("size_bytes=1XB", "a size such as"),
        ("count=x", "an integer"),
        ("on=maybe", "true or false"),
        ("mode=c", "one of a, b"),
        ("nope=1", "name (a text, or none)"),
        ("ratio=x", "a number"),
    ],
)
def test_wrong_option_names_expected_value(option: str, text: str) -> None:
    with pytest.raises(InvalidBrokerURL) as caught:
        BrokerURL.parse(f"x://h?{option}").read_options(_Options)
    assert text in str(caught.value)


def test_url_with_lone_surrogate_can_be_shown() -> None:
    """An error about the URL names it, so showing it must not fail."""
    assert str(BrokerURL.parse("x://host?prefix=\udc80")) == "x://host?prefix=%5Cudc80"


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:s3cr/et@host:6379/0",
        "redis://user:s3cr?et@host:6379/0",
        "redis://:s3cr/et@host",
        "redis://:123/s3cr@host",
        "redis://user:123@h?s3cr=1@host",
        "redis://user:123?x=s3cr@host",
        "redis://user:123?x=1&s3cr@host:6379/0",
        "redis://:123?s3cr@host",
        "redis://user:s3cr@host:s3cr",
        "user:s3cr/et@host",
        "user:s3cr@et@host",
        "1redis://user:s3cr@host",
    ],
)
def test_part_of_password_is_never_shown(text: str) -> None:
    with pytest.raises(InvalidBrokerURL) as caught:
        BrokerURL.parse(text)
    assert "s3cr" not in str(caught.value)
    assert "123" not in str(caught.value)
