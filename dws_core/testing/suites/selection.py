"""Selection of the tests that apply to a suite's class, before any test runs."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, get_type_hints

import pytest

from dws_core.plugin import BrokerInterface, LogBroker
from dws_core.testing.faults.broker_faults import BrokerFaults

MARK: Final = "dws_needs"
PLUGIN_PACKAGE: Final = "plugin_package"
"""A fixture of the suite itself, which the author does not define."""

UNKNOWN: Final = object()
"""The value of a fixture that is not known before the tests run."""


@dataclass(frozen=True)
class LeftOut:
    """Why a test does not apply.

    Attributes:
        why: The reason, such as `for a LogBroker`.
        missing: The part of the suite that the author can add, such as the fixture `sever`. Empty if there is none.
    """

    why: str
    missing: str = ""


def needs(
    kind: Literal["log", "plain", ""] = "",
    *capabilities: str,
    fixture: str = "",
    package: str = "",
    faults: tuple[str, ...] = (),
) -> pytest.MarkDecorator:
    """Mark a test that does not apply to every suite.

    Args:
        kind: The kind of broker. If empty, the test applies to both.
        *capabilities: Capabilities that the broker must promise, as `name`, `name=value` or `name!=value`. A kind of
            broker that has no such capability is not restricted by it.
        fixture: A fixture that the suite must define.
        package: A package that must be installed.
        faults: Methods of `BrokerFaults` that the fixture `fault` must implement.
    """
    return getattr(pytest.mark, MARK)(  # type: ignore[no-any-return]  # pytest makes marks of any name
        kind=kind,
        capabilities=capabilities,
        fixture="fault" if faults else fixture,
        package=package,
        faults=faults,
    )


def left_out(
    mark: pytest.Mark, broker_class: Callable[[], object], value_of: Callable[[str], object]
) -> LeftOut | None:
    """Return why a test with this mark does not apply.

    Args:
        mark: Made by `needs`.
        broker_class: Returns the class under test, or `UNKNOWN`.
        value_of: Returns the value of a fixture, `UNKNOWN`, or, for `fault`, its class.
    """
    need = mark.kwargs
    if need["package"] and importlib.util.find_spec(need["package"]) is None:
        return LeftOut(f"the package {need['package']!r} is not installed", f"pip install {need['package']}")
    if (
        (need["kind"] or need["capabilities"])
        and isinstance(found := broker_class(), type)
        and (why := _why_not_promised(found, need))
    ):
        return LeftOut(why)
    if not need["fixture"]:
        return None
    value = value_of(need["fixture"])
    if value is None:
        missing = "" if need["fixture"] == PLUGIN_PACKAGE else need["fixture"]
        return LeftOut(f"no fixture {need['fixture']!r}", missing)
    kind: Any = value if isinstance(value, type) else type(value)
    for name in need["faults"] if issubclass(kind, BrokerFaults) else ():
        if not kind.has(name):
            missing = "" if getattr(kind, name) is None else f"fault.{name}()"
            return LeftOut(f"the fixture 'fault' has no {name}()", missing)
    return None


def _why_not_promised(broker_class: Any, need: Mapping[str, Any]) -> str:
    if need["kind"] and not issubclass(broker_class, LogBroker if need["kind"] == "log" else BrokerInterface):
        return "for a LogBroker" if need["kind"] == "log" else "for a BrokerInterface"
    for capability in need["capabilities"]:
        if not _is_promised(broker_class.capabilities, capability):
            return f"not promised: {capability}"
    return ""


def _is_promised(capabilities: object, capability: str) -> bool:
    name, _, wanted = capability.partition("=")
    value = getattr(capabilities, name.removesuffix("!"), _NO_SUCH)
    if value is _NO_SUCH:
        return True
    if name.endswith("!"):
        return bool(value != wanted)
    return bool(value == wanted if wanted else value)


_NO_SUCH: Final = object()


def constant(cls: type, name: str) -> object:
    """Return the value of a constant fixture of a class, else `UNKNOWN`.

    For `fault`, the class of faults with which the fixture is annotated is enough.
    """
    if (cls, name) not in _CONSTANTS:
        _CONSTANTS[cls, name] = _find_constant(cls, name)
    return _CONSTANTS[cls, name]


_CONSTANTS: Final[dict[tuple[type, str], object]] = {}


def _find_constant(cls: type, name: str) -> object:
    if name == "fault" and (annotated := _annotated_faults(cls)) is not None:
        return annotated
    if not is_constant(cls, name):
        return UNKNOWN
    try:
        return _call(cls, name)
    except (Exception, pytest.skip.Exception, pytest.fail.Exception):  # noqa: BLE001 -- the tests will raise it again
        return UNKNOWN


def is_of_author(cls: type, name: str) -> bool:
    """Whether a fixture, or None in its place, is defined by the author of the class and not by the suite."""
    fixture = getattr(cls, name)
    return fixture is None or not inspect.unwrap(fixture).__module__.startswith("dws_core.testing.")


def is_constant(cls: type, name: str) -> bool:
    """Whether a fixture is a plain function that uses no fixtures from outside the class."""
    if (fixture := getattr(cls, name, UNKNOWN)) is None:
        return True
    function = inspect.unwrap(fixture)  # type: ignore[arg-type]  # anything but a function is refused in the next line
    if not inspect.isfunction(function) or any(is_kind(function) for is_kind in _NO_PLAIN_FUNCTIONS):
        return False
    return all(is_constant(cls, used) for used in _used_by(function))


_NO_PLAIN_FUNCTIONS: Final = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)


def _call(cls: type, name: str) -> object:
    if (fixture := getattr(cls, name)) is None:
        return None
    function = inspect.unwrap(fixture)
    return function(cls(), **{used: _call(cls, used) for used in _used_by(function)})


def _used_by(function: Callable[..., object]) -> list[str]:
    return list(inspect.signature(function).parameters)[1:]


def _annotated_faults(cls: type) -> type[BrokerFaults] | None:
    found = None
    if (fixture := getattr(cls, "fault", None)) is not None:
        with suppress(Exception):  # the annotation cannot be evaluated here
            found = get_type_hints(inspect.unwrap(fixture)).get("return")
    return found if inspect.isclass(found) and issubclass(found, BrokerFaults) and found is not BrokerFaults else None
