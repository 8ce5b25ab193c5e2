"""Origins that may connect."""

from __future__ import annotations

import pytest

from dws_core._auth.origin import origin_allowed


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
        ("http://[bad", "h", (), False),
        ("http://h:99999", "h", (), False),
        ("https://app", "h", ("https://app/",), True),
        ("https://app", "h", ("*",), True),
        ("https://h", None, (), False),
        ("http://[::1]:80", "[::1]", (), True),
    ],
)
def test_origin_is_allowed_if_same_host_or_listed(
    origin: str | None, host: str | None, allowed: tuple[str, ...], answer: bool
) -> None:
    assert origin_allowed(origin, host, allowed) is answer
