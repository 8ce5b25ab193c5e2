"""Tests that need a real server."""

from __future__ import annotations

import pytest


def requires_service(url: str) -> pytest.MarkDecorator:
    """Mark a test or class that needs the server at a URL.

    If no server accepts connections there, the test is skipped. If the comma-separated environment variable
    `DWS_REQUIRE_SERVICES` contains the scheme of the URL, the test fails instead, so that a missing server cannot make
    a build pass.

    Args:
        url: URL with host and port, for example `nats://127.0.0.1:4222`.
    """
    return pytest.mark.dws_service(url)
