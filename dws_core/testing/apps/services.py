"""Tests that need a real server."""

from __future__ import annotations

import pytest


def requires_service(url: str) -> pytest.MarkDecorator:
    """Mark a test or class that needs the server at a URL.

    Where nothing answers there, it is skipped; if the environment variable `DWS_REQUIRE_SERVICES` (comma-separated)
    names the URL's scheme, it fails: a skip cannot turn a build green by accident.

    Args:
        url: With host and port, for example `nats://127.0.0.1:4222`.
    """
    return pytest.mark.dws_service(url)
