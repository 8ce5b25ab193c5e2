"""The pytest plugin of the core, which supports the suites of `dws_core.testing`.

pytest loads it in every environment in which dws is installed, so it does nothing unless a test uses it. It is a module
next to the package, not inside it, because every module of `dws_core` would import `dws_core` and a web framework.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import lru_cache
from urllib.parse import urlsplit

import pytest

# Failing asserts of the suites show their values, in whatever repository they run. Before they are imported.
pytest.register_assert_rewrite("dws_core.testing")

_SERVICE = "dws_service"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of `requires_service`."""
    config.addinivalue_line(
        "markers", f"{_SERVICE}(url): needs the server at this URL; skipped, or failed where it is required"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need an unavailable server, or fail them if `DWS_REQUIRE_SERVICES` names the URL's scheme."""
    for mark in item.iter_markers(_SERVICE):
        url: str = mark.args[0]
        if not _answers(url):
            scheme = urlsplit(url).scheme
            text = f"nothing answers at {url}; start the server there"
            if scheme in os.environ.get("DWS_REQUIRE_SERVICES", "").split(","):
                pytest.fail(f"{text} (DWS_REQUIRE_SERVICES names {scheme})", pytrace=False)
            pytest.skip(text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a suite whose keeper fixture is overridden. The keeper checks everything else."""
    module = sys.modules.get("dws_core.testing.suites.conformance")
    if module is None:
        return
    for cls in {item.cls for item in items if isinstance(item, pytest.Function) and item.cls is not None}:
        if issubclass(cls, module.Conformance) and not cls.keeps_its_keeper():
            raise pytest.UsageError(f"{cls.__qualname__} replaces {module.KEEPER}. Fix: remove its definition")


@lru_cache
def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 0), timeout=2):
            return True
    except OSError:
        return False
