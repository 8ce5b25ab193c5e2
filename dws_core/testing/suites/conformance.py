"""What all suites share: nobody opts out in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeVar

import pytest

T = TypeVar("T", bound=Callable[..., Any])

KEEPER: Final = "test_every_standard_test_is_kept"


class Conformance:
    """Base of the suites. Subclass one, give it its fixtures, and its tests are yours.

    A standard test may be replaced only by one that says why: `@pytest.mark.xfail(reason="…", strict=True)`. Strict:
    the day it passes, the mark must go.
    """

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Run async tests on asyncio, the event loop of FastAPI's servers."""
        return "asyncio"

    def test_every_standard_test_is_kept(self) -> None:
        """Each test of the suite is there, or marked as a known limit with its reason."""
        wrong = [f"{name}: {why}" for name, why in _replaced(type(self))]
        assert not wrong, (
            f"{type(self).__qualname__} replaces standard tests. Fix: remove them, or mark them with "
            '@pytest.mark.xfail(reason="…", strict=True):\n  ' + "\n  ".join(wrong)
        )

    @classmethod
    def keeps_its_keeper(cls) -> bool:
        """Say whether the test above is the one that runs."""
        return getattr(cls, KEEPER) is getattr(Conformance, KEEPER)


def needs(kind: Literal["log", "plain"], *capabilities: str) -> Callable[[T], T]:
    """Make a test of a broker suite run only for brokers of a kind that promise these capabilities."""

    def mark(test: T) -> T:
        test.__dict__["dws_needs"] = (kind, capabilities)
        return test

    return mark


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
