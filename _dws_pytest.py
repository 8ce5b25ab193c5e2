"""The pytest plugin of the core, which supports the suites of `dws_core.testing`.

pytest loads it in every environment in which dws is installed, so it does nothing unless a test uses it. It is a module
next to the package, not inside it, because every module of `dws_core` would import `dws_core` and a web framework.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

# Let failing assertions of the suites show their values in every repository. Must run before the suites are imported.
pytest.register_assert_rewrite("dws_core.testing")

_SERVICE = "dws_service"
_FIX = "Fix: define them, or set those to None that the broker cannot have"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that lists the left-out tests."""
    parser.addoption(
        "--dws-show-deselected",
        action="store_true",
        help="list the tests of the suites of dws that were left out, with the reasons",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of `requires_service` and of the suites."""
    config.addinivalue_line(
        "markers", f"{_SERVICE}(url): needs the server at this URL. Skips, or fails if the server is required"
    )
    config.addinivalue_line("markers", "dws_needs(…): applies to some suites only; deselected in the others")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need an unavailable server, or fail them if `DWS_REQUIRE_SERVICES` names the URL's scheme."""
    for mark in item.iter_markers(_SERVICE):
        url: str = mark.args[0]
        if not _responds(url):
            scheme = urlsplit(url).scheme
            text = f"no server responds at {url}. Fix: start the server there"
            if scheme in os.environ.get("DWS_REQUIRE_SERVICES", "").split(","):
                pytest.fail(f"{text} (required by DWS_REQUIRE_SERVICES, which contains {scheme})", pytrace=False)
            pytest.skip(text)


@pytest.hookimpl(trylast=True)  # after the options -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that do not apply to their suite, and refuse a suite whose guard test was replaced."""
    module = sys.modules.get("dws_core.testing.suites.conformance")
    if module is None:
        return
    functions = [item for item in items if isinstance(item, pytest.Function) and item.cls is not None]
    of_suites = [item for item in functions if issubclass(item.cls, module.Conformance)]
    for cls in {item.cls for item in of_suites}:
        if not cls.keeps_guard_test():
            raise pytest.UsageError(f"{cls.__qualname__} replaces {module.GUARD_TEST}. Fix: remove its definition")
    reasons = {item: item.cls.find_reason_to_leave_out(item) for item in of_suites}
    left_out = {item: reason for item, reason in reasons.items() if reason is not None}
    config.stash[_SELECTION] = Selection(left_out, list(dict.fromkeys(item.cls for item in of_suites)))
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Report what an author can add to a suite, so that an incomplete suite does not look complete."""
    if (selection := config.stash.get(_SELECTION, None)) is None:
        return
    if config.getoption("dws_show_deselected"):
        terminalreporter.section("conformance tests that were left out")
        for item, reason in selection.left_out.items():
            terminalreporter.line(f"{item.nodeid}: {reason.why}")
    for line in selection.advice():
        terminalreporter.line(line)


class Selection(NamedTuple):
    """The selection of the tests of the suites in a run.

    Attributes:
        left_out: The tests that do not apply to their class, with the reasons.
        suites: The classes.
    """

    left_out: dict[pytest.Function, Any]
    suites: list[Any]

    def advice(self) -> Iterator[str]:
        """Yield at most two lines for each class."""
        for suite in self.suites:
            if advice := suite.find_advice():
                yield advice
            missing = Counter(r.missing for item, r in self.left_out.items() if item.cls is suite and r.missing)
            if missing:
                parts = ", ".join(f"{part} ({count})" for part, count in missing.items())
                yield f"{suite.__qualname__} leaves out {missing.total()} test(s) that need: {parts}. {_FIX}"


_SELECTION = pytest.StashKey[Selection]()


@lru_cache
def _responds(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 0), timeout=10):
            return True
    except OSError:
        return False
