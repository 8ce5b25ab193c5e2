"""The pytest plugin that comes with the core: it makes the suites of `dws_core.testing` read and behave well.

It is loaded in every test run of an environment that has dws installed, so it does nothing unless a test uses it, and
stands beside the package, not in it: importing a module of `dws_core` imports `dws_core`, and that a web framework.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Generator
from urllib.parse import urlsplit

import pytest

# Failing asserts of the suites show their values, in whatever repository they run. Before they are imported.
pytest.register_assert_rewrite("dws_core.testing")

_SERVICE = "dws_service"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker of `requires_service` known."""
    config.addinivalue_line(
        "markers", f"{_SERVICE}(url): needs the server at this URL; skipped, or failed where it is required"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a server that does not answer, or fail it if `DWS_REQUIRE_SERVICES` names the URL's scheme."""
    for mark in item.iter_markers(_SERVICE):
        url: str = mark.args[0]
        if not _answers(url):
            scheme = urlsplit(url).scheme
            text = f"nothing answers at {url}; start the server there"
            if scheme in os.environ.get("DWS_REQUIRE_SERVICES", "").split(","):
                pytest.fail(f"{text} (DWS_REQUIRE_SERVICES names {scheme})", pytrace=False)
            pytest.skip(text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a suite whose keeper was replaced: everything else it checks itself."""
    module = sys.modules.get("dws_core.testing._conformance")
    if module is None:
        return
    for cls in {item.cls for item in items if isinstance(item, pytest.Function) and item.cls is not None}:
        if issubclass(cls, module.Conformance) and not cls.keeps_its_keeper():
            raise pytest.UsageError(f"{cls.__qualname__} replaces {module.KEEPER}. Fix: remove its definition")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Make a suite's test fail when a plugin ends it as cancelled: anyio's runner would end, and the next test hang."""
    module = sys.modules.get("dws_core.testing._conformance")
    suite = module and pyfuncitem.cls and issubclass(pyfuncitem.cls, module.Conformance)
    if suite and inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _uncancelled(pyfuncitem.obj)
    return (yield)


def _uncancelled(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(*args: object, **kwargs: object) -> None:
        try:
            await test(*args, **kwargs)
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            raise AssertionError("what the test awaited ended as cancelled, though nobody cancelled it") from error

    return run


@functools.lru_cache
def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 0), timeout=2):
            return True
    except OSError:
        return False
