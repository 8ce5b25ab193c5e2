"""Calls the hooks of plugins and collects their records. A mistake loses one function or one record, not more."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import logging
import types
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import pluggy

from dws_core import hookspecs
from dws_core._errors import ConfigurationError, PluginLoadError
from dws_core._plugins.markers import API_VERSION, OLDEST_API_VERSION, PROJECT
from dws_core._plugins.records import CORE, KINDS, Offers, Plugin, Problem, value_of_type
from dws_core._plugins.slow import report_slow

logger = logging.getLogger("dws")

MAX_RECORDS: Final = 1_000
"""Maximum number of records of one hook call. A generator that never ends is cut off here."""

_RAISED: Final = (Exception, SystemExit)


class Hooks:
    """Calls hook functions through pluggy, so that calls can be traced.

    Args:
        trace: Whether to log all hook calls.
    """

    def __init__(self, *, trace: bool) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        if trace:
            self._manager.trace.root.setwriter(lambda text: logger.info("plugins: %s", text.rstrip()))
            self._manager.enable_tracing()

    def collect(self, plugins: Iterable[tuple[Plugin, object]], problems: list[Problem]) -> dict[str, Offers]:
        """Return the records of all plugins by hook and name. Add the failures to `problems`."""
        offers: dict[str, Offers] = {hook: {} for hook in KINDS}
        for plugin, module in plugins:
            functions, mistakes = self.functions(plugin, module)
            before = len(problems)
            problems += mistakes
            count = 0
            for hook, function in functions:
                for spec in self._records(plugin, hook, function, problems):
                    count += 1
                    for name in spec.names:
                        offers[hook].setdefault(name, []).append((plugin, spec))
            if not count and len(problems) == before:
                problems.append(_problem(plugin, "offers nothing: its hooks returned no record.", "remove the plugin"))
        return offers

    def functions(self, plugin: Plugin, module: object) -> tuple[list[tuple[str, Any]], list[Problem]]:
        """Return the valid hook functions of a plugin, and its mistakes."""
        functions: list[tuple[str, Any]] = []
        try:
            problems = [*_api_mismatch(plugin, module)]
            if problems:
                return [], problems
            for name, function in _members(module):
                mistake = self._mistake(plugin, name, function)
                if mistake is None:
                    functions.append((name, function))
                else:
                    problems.append(mistake)
        except _RAISED as error:  # an attribute of the plugin raises when it is read
            return [], [Problem(plugin=plugin, error=error)]
        if not functions and not problems:
            problems.append(_offers_nothing(plugin, module))
        return functions, problems

    def _mistake(self, plugin: Plugin, name: str, function: Any) -> Problem | None:
        if name not in KINDS:
            meant = difflib.get_close_matches(name, KINDS, n=1, cutoff=0.0)[0]
            return _problem(plugin, f"implements unknown hook {name!r}. Did you mean {meant!r}?", "rename the function")
        options = _mark(function)
        if options is None:
            return _problem(
                plugin,
                f"is not complete: function {name} has no @hookimpl mark.",
                "write @hookimpl from dws_core.plugin above the function",
            )
        if options.get("wrapper") or options.get("hookwrapper"):
            return _problem(plugin, f"marks {name} as a wrapper of other hooks.", "write @hookimpl without arguments")
        try:
            with self._registered(name, function):
                return None
        except (pluggy.PluginValidationError, ValueError, TypeError) as error:
            found = _problem(
                plugin,
                f"does not match the hook specifications: {name} takes arguments.",
                "remove the arguments; if the entry point names a class, let it name an instance",
            )
            found.error.__cause__ = error
            return found

    @contextlib.contextmanager
    def _registered(self, name: str, function: Any) -> Iterator[None]:
        holder = types.SimpleNamespace(**{name: function})
        try:
            self._manager.register(holder, name=name)
            yield
        finally:
            if self._manager.is_registered(holder):
                self._manager.unregister(holder)

    def _records(self, plugin: Plugin, hook: str, function: Any, problems: list[Problem]) -> list[Any]:
        """Return the valid records of one function, including those before an exception."""
        expected = KINDS[hook][1]
        records: list[Any] = []
        try:
            with report_slow(plugin, f"in {hook}"), self._registered(hook, function):
                for spec in _iterate(hook, getattr(self._manager.hook, hook)(), expected):
                    if (mistake := _wrong_record(plugin, hook, spec, expected)) is not None:
                        problems.append(mistake)
                    else:
                        records.append(spec)
        except _RAISED as error:
            problems.append(Problem(plugin=plugin, error=error))
        return records


def _iterate(hook: str, results: list[Any], expected: type[Any]) -> Iterator[Any]:
    result = results[0] if results else None  # pluggy drops None
    if inspect.iscoroutine(result):
        result.close()
    if not isinstance(result, Iterable) or isinstance(result, str | bytes):
        raise PluginLoadError(
            f"{hook} returned {_describe(result)}, expected an iterable of {expected.__name__}.",
            fix="yield each record, or return a list of them",
        )
    for count, spec in enumerate(result):
        if count == MAX_RECORDS:
            raise PluginLoadError(f"{hook} returned more than {MAX_RECORDS} records.", fix="correct the plugin")
        yield spec


def _wrong_record(plugin: Plugin, hook: str, spec: Any, expected: type[Any]) -> Problem | None:
    if not isinstance(spec, expected):
        text = f"{hook} returned {_describe(spec)}, expected {expected.__name__}."
        return Problem(plugin=plugin, error=PluginLoadError(text, fix="correct the plugin"), names=_names(spec))
    try:
        spec.check()
    except ConfigurationError as error:
        return Problem(plugin=plugin, error=error, names=_names(spec))
    return None


def _names(spec: Any) -> tuple[str, ...]:
    """Return the names of a record that may be malformed."""
    names = getattr(spec, "names", ())
    names = (names,) if isinstance(names, str) else names
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, tuple | list) else ()


def _members(module: object) -> Iterator[tuple[str, Any]]:
    """Yield the functions of a plugin that look like hooks: by their mark, or by their name."""
    names = list(vars(module)) if isinstance(module, types.ModuleType) else dir(module)  # no lazy import is triggered
    for name in names:
        if name.startswith("__"):
            continue
        value = getattr(module, name, None)
        mark = _mark(value)
        if mark is not None:
            yield mark.get("specname") or name, value
        elif name.startswith("dws_register_") and callable(value):
            yield name, value


def _mark(function: Any) -> dict[str, Any] | None:
    mark = getattr(function, f"{PROJECT}_impl", None) if inspect.isroutine(function) else None
    return mark if isinstance(mark, dict) else None


def _api_mismatch(plugin: Plugin, module: object) -> Iterator[Problem]:
    needed = getattr(module, "dws_api", None)
    if needed is None:
        return
    if not isinstance(needed, int) or isinstance(needed, bool):
        yield _problem(plugin, f"states dws_api = {needed!r}, expected an integer.", f"write dws_api = {API_VERSION}")
    elif not OLDEST_API_VERSION <= needed <= API_VERSION:
        try:
            core = f"{CORE} {version(CORE)}"
        except PackageNotFoundError:
            core = CORE
        new, old = (plugin.distribution, CORE) if needed > API_VERSION else (CORE, plugin.distribution)
        yield _problem(
            plugin,
            f"needs version {needed} of the plugin API, and {core} serves version {API_VERSION}.",
            f"upgrade {old}, or install an older version of {new}",
        )


def _offers_nothing(plugin: Plugin, module: object) -> Problem:
    what = f"module {module.__name__}" if isinstance(module, types.ModuleType) else f"its {type(module).__name__}"
    return _problem(
        plugin,
        f"offers nothing: {what} has no function such as dws_register_brokers.",
        "implement a hook, or correct the entry point in the metadata of the package",
    )


def _problem(plugin: Plugin, text: str, fix: str) -> Problem:
    return Problem(plugin=plugin, error=PluginLoadError(f"{plugin.title} {text}", fix=fix))


def _describe(value: object) -> str:
    return "None" if value is None else value_of_type(value)
