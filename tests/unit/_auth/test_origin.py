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
