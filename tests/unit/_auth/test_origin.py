"""Origins that may connect."""

from __future__ import annotations

from typing import Any

import pytest

from dws_core import ConfigurationError
from dws_core._auth.origin import AllowedOrigins


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "answer"),
    [
        (None, "h", (), True),
        ("https://h", "h", (), True),
        ("https://H:443", "h", (), True),
        ("http://h:8000", "h:8000", (), True),
        ("http://h:8001", "h:8000", (), False),
        ("https://evil", "h", (), False),
        ("https://h.evil", "h", (), False),
        ("null", "h", (), False),
        ("null", "h", ("null",), True),
        ("null", "h", ("*",), True),
        ("http://[bad", "h", (), False),
        ("http://h:99999", "h", (), False),
        ("https://app", "h", ("https://app/",), True),
        ("https://app", "h", ("https://APP:443",), True),
        ("https://app:8443", "h", ("https://app",), False),
        ("http://app", "h", ("https://app",), False),
        ("https://app", "h", (" https://app ",), True),
        ("https://app", "h", ("*",), True),
        ("https://app/path", "h", ("https://app",), False),
        ("https://h", None, (), False),
        ("http://[::1]:80", "[::1]", (), True),
        ("https://x.a.example", "h", ("https://*.a.example",), True),
        ("https://x.y.a.example", "h", ("https://*.a.example",), True),
        ("https://a.example", "h", ("https://*.a.example",), False),
        ("https://evila.example", "h", ("https://*.a.example",), False),
        ("https://x.a.example.evil", "h", ("https://*.a.example",), False),
        ("http://x.a.example", "h", ("https://*.a.example",), False),
        ("https://x.a.example:444", "h", ("https://*.a.example",), False),
        ("https://xn--bcher-kva.example", "h", ("https://bücher.example",), True),
        ("https://xn--strae-oqa.example", "h", ("https://Straße.example",), True),
        ("https://strasse.example", "h", ("https://straße.example",), False),
        ("https://a.example", "h", ("https://a。example",), True),
        ("https://a.example.", "h", ("https://a.example",), True),
        ("https://a.example", "h", ("https://a.example.:443/",), True),
        ("https://a.example", "a.example.", (), True),
        ("https://[2001:db8::1]:8443", "h", ("https://[2001:DB8:0:0:0:0:0:1]:8443",), True),
        ("http://[::1]", "[0:0:0:0:0:0:0:1]:80", (), True),
        ("http://127.0.0.1:5173", "h", ("http://127.0.0.1:5173",), True),
        ("https://app", "h", (" * ",), True),
        ("null", "h", (" null",), True),
        ("https://a_b.example", "h", ("https://a_b.example",), True),
        ("https://a.exam\nple", "a.example", (), False),
        ("https://a.example:0", "a.example", (), False),
        ("https://", "", (), False),
        ("chrome-extension://abcdef", "h", ("chrome-extension://abcdef",), True),
        ("capacitor://localhost", "h", ("capacitor://localhost",), True),
    ],
)
def test_origin_is_allowed_if_same_host_or_listed(
    origin: str | None, host: str | None, allowed: tuple[str, ...], answer: bool
) -> None:
    assert AllowedOrigins(allowed).allow(origin, host) is answer


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "a.example",
        "a.example:443",
        "https://",
        "https://a.example/app",
        "https://a.example?x",
        "https://user@a.example",
        "https://a.example, https://b.example",
        "https://a*.example",
        "https://x.*.example",
        "https://*.*.example",
        "https://a.example:port",
        "https://a.example:99999",
        "*.a.example",
        "wss://a.example",
        "ws://*.a.example",
        "https://*",
        "https://a.example:*",
        "https://a.example:0",
        "https://a..example",
        "https://.example",
        "https://a.example\\x",
        "https://%61.example",
        "https://a.exam\nple",
        "https://" + "a" * 64 + ".example",
        "http://127.1",
        "http://[::1",
        "http://[fe80::1%25eth0]",
        "NULL",
        None,
        5,
    ],
)
def test_entry_that_is_no_origin_is_refused(entry: Any) -> None:
    with pytest.raises(ConfigurationError, match="which is not an origin"):
        AllowedOrigins([entry])


def test_one_string_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="one string"):
        AllowedOrigins("https://a.example")
