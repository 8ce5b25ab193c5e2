"""The base class of all suites. It detects replaced and unmarked standard tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import pytest

from dws_core.testing.suites.selection import MARK, UNKNOWN, LeftOut, constant, is_of_author, left_out

GUARD_TEST: Final = "test_every_standard_test_is_kept"


class Conformance:
    """Base class of the suites. Subclass a suite and define its fixtures to run its tests.

    You may replace a standard test only by one with the mark `@pytest.mark.xfail(reason="…", strict=True)`. Because the
    mark is strict, a test that passes again fails until you remove the mark.
    """

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Run async tests on asyncio, the event loop of FastAPI's servers."""
        return "asyncio"

    def test_every_standard_test_is_kept(self) -> None:
        """Every test of the suite exists, or is marked as a known limitation with a reason."""
        wrong = [f"{name}: {why}" for name, why in _replaced(type(self))]
        assert not wrong, (
            f"{type(self).__qualname__} replaces standard tests. Fix: remove them, or mark them with "
            '@pytest.mark.xfail(reason="…", strict=True):\n  ' + "\n  ".join(wrong)
        )

    @pytest.fixture(autouse=True)
    def _select(self, request: pytest.FixtureRequest) -> None:
        """Skip a test that does not apply, where this was not known at collection."""
        for mark in request.node.iter_markers(MARK):
            if found := left_out(mark, partial(request.getfixturevalue, "broker_class"), request.getfixturevalue):
                pytest.skip(found.why)

    @classmethod
    def find_broker(cls) -> object:
        """Return the class of the broker under test, or `UNKNOWN`."""
        return UNKNOWN

    @classmethod
    def find_advice(cls) -> str:
        """Return how the selection of this class's tests can be improved. Empty if it cannot."""
        return ""

    @classmethod
    def find_reason_to_leave_out(cls, test: pytest.Item) -> LeftOut | None:
        """Return why a test does not apply to this class, or None if it does, or if this is not known yet."""
        for mark in test.iter_markers(MARK):
            if found := left_out(mark, cls.find_broker, partial(constant, cls)):
                is_declared_absent = hasattr(cls, found.missing) and is_of_author(cls, found.missing)
                return replace(found, missing="") if is_declared_absent else found
        return None

    @classmethod
    def keeps_guard_test(cls) -> bool:
        """Return whether a subclass has not replaced `test_every_standard_test_is_kept`."""
        return getattr(cls, GUARD_TEST) is getattr(Conformance, GUARD_TEST)


def _replaced(cls: type) -> Iterator[tuple[str, str]]:
    for name, standard in _standard_tests(cls).items():
        actual = getattr(cls, name, None)
        if actual is not standard and (why := _why_not_allowed(actual)):
            yield name, why
    if any(mark.name == "xfail" for mark in _marks(cls)):
        yield cls.__qualname__, "the whole class is marked xfail"


def _standard_tests(cls: type) -> dict[str, object]:
    found: dict[str, object] = {}
    for base in cls.__mro__:
        if base.__module__.startswith("dws_core.testing."):
            for name, value in vars(base).items():
                if name.startswith("test_"):
                    found.setdefault(name, value)
    return found


def _why_not_allowed(test: object) -> str:
    marks = [mark for mark in _marks(test) if mark.name == "xfail"]
    if not marks:
        return "it is not marked xfail"
    if any(mark.args for mark in marks):
        return "its mark has a condition"
    if not all(mark.kwargs.get("strict") is True for mark in marks):
        return "its mark is not strict"
    return "" if all(str(mark.kwargs.get("reason", "")).strip() for mark in marks) else "its mark has no reason"


def _marks(thing: object) -> list[pytest.Mark]:
    found: Any = getattr(thing, "pytestmark", [])
    every = found if isinstance(found, list) else [found]
    return [mark.mark if isinstance(mark, pytest.MarkDecorator) else mark for mark in every]
