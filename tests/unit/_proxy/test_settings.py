"""Settings that a proxy rejects before it connects."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from dws_core import ConfigurationError, WebSocketProxy
from dws_core._proxy.settings import masked


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("http://h/", "scheme"),
        ("ws:///path", "hostname"),
        ("ws://h/#part", "fragment"),
        ("ws://h:99999/", "[Pp]ort"),
        ("ws://h/a b", "space"),
        ("ws://h/a\r\nX: y", "space"),
        (f"ws://{'a' * 64}.example/", "too long"),
        ("ws://user@h/", "password"),
    ],
)
def test_invalid_endpoint_is_rejected_with_fix(endpoint: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as error:
        WebSocketProxy(None, endpoint)  # type: ignore[arg-type]
    assert error.value.fix


def test_rejected_endpoint_hides_its_secrets() -> None:
    with pytest.raises(ConfigurationError) as error:
        WebSocketProxy(None, "http://ann:hush@h/p?token=hush")  # type: ignore[arg-type]
    assert "hush" not in str(error.value)
    assert error.value.__suppress_context__
    assert masked("wss://a:hush@h:1/p@q?x#y") == "wss://***@h:1/p@q"


@pytest.mark.parametrize(
    "options",
    [
        {"forward_headers": "cookie"},
        {"forward_headers": ["sec-websocket-extensions"]},
        {"forward_headers": ["Sec-WebSocket-Protocol"]},
        {"forward_headers": ["Connection"]},
        {"forward_headers": ["a b"]},
        {"extra_headers": {"Sec-WebSocket-Key": "x"}},
        {"extra_headers": {"Host": "x"}},
        {"extra_headers": {"x-user": "ann\r\nx-admin: 1"}},
        {"extra_headers": {"x-user": "\N{SNOWMAN}"}},
        {"subprotocols": "a"},
        {"subprotocols": ["a, b"]},
        {"subprotocols": {"a": "b c"}},
        {"ssl": ssl.create_default_context()},
    ],
    ids=str,
)
def test_invalid_options_are_rejected_with_fix(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="WebSocketProxy") as error:
        WebSocketProxy(None, "ws://h/", **options)  # type: ignore[arg-type]
    assert error.value.fix


def test_two_authorization_headers_are_rejected() -> None:
    for options in ({"forward_headers": ["authorization"]}, {"extra_headers": {"Authorization": "x"}}):
        with pytest.raises(ConfigurationError, match="two Authorization"):
            WebSocketProxy(None, "ws://u:p@h/", **options)  # type: ignore[arg-type]
