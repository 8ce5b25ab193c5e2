"""Finds and imports the installed plugins. A plugin that cannot be imported harms no other."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points

from dws_core._errors import PluginLoadError
from dws_core._plugins.markers import PROJECT
from dws_core._plugins.records import Plugin, Problem, canonical
from dws_core._plugins.slow import report_slow

logger = logging.getLogger("dws")


@dataclass(slots=True)
class Discovered:
    """The result of a search for plugins.

    Attributes:
        plugins: The imported plugins, each with the module or object of its entry point.
        problems: The plugins that could not be imported.
        disabled: The plugins that were ignored on request.
    """

    plugins: list[tuple[Plugin, object]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    disabled: list[Plugin] = field(default_factory=list)


def disabled_in_environment() -> frozenset[str]:
    """Return the names in `DWS_DISABLE_PLUGINS`."""
    return frozenset(name.strip() for name in os.environ.get("DWS_DISABLE_PLUGINS", "").split(",") if name.strip())


def discover(points: Iterable[EntryPoint] | None, disabled: Collection[str]) -> Discovered:
    """Import the plugins of entry points.

    Args:
        points: The entry points. If None, all installed ones of the group `dws_core`.
        disabled: Names of entry points and of distributions to ignore.
    """
    found = Discovered()
    seen: dict[tuple[str, str], str] = {}
    for point in entry_points(group=PROJECT) if points is None else points:
        plugin = _origin(point)
        key = (canonical(plugin.distribution), plugin.name)
        if plugin.names & set(disabled) or canonical(plugin.distribution) in map(canonical, disabled):
            found.disabled.append(plugin)
        elif key not in seen:
            seen[key] = point.value
            _import(point, plugin, found)
        elif seen[key] != point.value:
            found.problems.append(Problem(plugin=plugin, error=_defined_twice(plugin, seen[key], point.value)))
    found.plugins.sort(key=lambda pair: (pair[0].distribution, pair[0].name))  # folders list their files in any order
    found.problems.sort(key=lambda problem: (problem.plugin.distribution, problem.plugin.name))
    _warn_of_unknown(disabled, found)
    return found


def _import(point: EntryPoint, plugin: Plugin, found: Discovered) -> None:
    try:
        with report_slow(plugin, "to import"):
            found.plugins.append((plugin, _load(point, plugin)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- reported later, the other plugins work
        found.problems.append(Problem(plugin=plugin, error=error))


def _load(point: EntryPoint, plugin: Plugin) -> object:
    if EntryPoint.pattern.match(point.value) is None:
        raise PluginLoadError(
            f"{plugin.title} has the malformed entry point {point.value!r}.",
            fix="write the name of a module in the metadata of the package, and reinstall it",
        )
    return point.load()


def _origin(point: EntryPoint) -> Plugin:
    try:
        if point.dist is not None:
            return Plugin(name=point.name, distribution=point.dist.name, version=point.dist.version)
    except Exception:  # metadata without a name or a version: the entry point is enough
        logger.debug("the metadata of entry point %r cannot be read", point.name, exc_info=True)
    return Plugin(name=point.name, distribution=point.value)


def _defined_twice(plugin: Plugin, first: str, second: str) -> PluginLoadError:
    return PluginLoadError(
        f"{plugin.title} is named by two entry points, {first!r} and {second!r}. The second is not used.",
        fix="rename one of them in the metadata of the package, and reinstall it",
    )


def _warn_of_unknown(disabled: Collection[str], found: Discovered) -> None:
    plugins = [*(plugin for plugin, _ in found.plugins), *(p.plugin for p in found.problems), *found.disabled]
    names = {name for plugin in plugins for name in plugin.names}
    for name in sorted(set(disabled) - {""}):
        if name in names or canonical(name) in names:
            continue
        meant = difflib.get_close_matches(name, sorted(names), n=1)
        guess = f". Did you mean {meant[0]!r}?" if meant else "."
        installed = ", ".join(sorted({plugin.name for plugin in plugins})) or "none"
        logger.warning(
            "DWS_DISABLE_PLUGINS names %r, but no such plugin is installed%s Installed: %s. "
            "Fix: write names of entry points or of distributions, separated by commas",
            name,
            guess,
            installed,
        )
