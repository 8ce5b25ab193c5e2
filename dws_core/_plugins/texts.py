"""The errors of failed look-ups: they name the likely cause first, and a remedy that works."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Final

from dws_core._errors import DWSError, PluginConflict, PluginNotFound
from dws_core._plugins.installing import how_to_install, how_to_reinstall
from dws_core._plugins.records import CORE, LOCAL, Offers, Plugin, Problem, as_sentence, canonical, reason_of

_KNOWN_SCHEMES: Final = {
    "memory": "dws-memory",
    "redis": "dws-redis",
    "rediss": "dws-redis",
    "redis+cluster": "dws-redis",
    "rediss+cluster": "dws-redis",
    "redis+sentinel": "dws-redis",
    "rediss+sentinel": "dws-redis",
    "unix": "dws-redis",
    "kafka": "dws-kafka",
    "kafkas": "dws-kafka",
    "amqp": "dws-amqp",
    "amqps": "dws-amqp",
}

_ALIKE: Final = 0.75
"""Ratio of `difflib` from which a failed plugin counts as the one that was asked for."""


_SHOWN: Final = 20
"""Maximum number of names in an error."""


def conflict(kind: str, name: str, offering: list[Plugin], every: Collection[Plugin]) -> PluginConflict:
    """Return the error for a name that is offered more than once.

    Args:
        kind: Noun of the record.
        name: The name.
        offering: The plugins that offer it.
        every: All plugins, also those that offer something else.
    """
    plugins = sorted(set(offering), key=_order)
    if len(plugins) == 1:
        return PluginConflict(
            f"{kind} {name!r} is offered twice by {plugins[0].title}.",
            fix=f"install another version of {plugins[0].distribution}, and report it to its authors "
            "(DWS_DISABLE_PLUGINS does not help, because it disables the whole plugin)",
        )
    if len({plugin.distribution for plugin in plugins}) == 1:
        points = " and ".join(plugin.name for plugin in plugins)
        return PluginConflict(
            f"{kind} {name!r} is offered by the entry points {points} of {plugins[0]}.",
            fix=f"set DWS_DISABLE_PLUGINS={','.join(plugin.name for plugin in plugins[1:])}, "
            f"and report it to the authors of {plugins[0].distribution}",
        )
    shown = " and by ".join(map(str, plugins))
    return PluginConflict(f"{kind} {name!r} is offered by {shown}.", fix=_remedy(plugins, every))


def disposable(plugins: Iterable[Plugin]) -> Plugin:
    """Return the plugin to remove in a conflict, which is never the one that is built in."""
    foreign = [plugin for plugin in plugins if canonical(plugin.distribution) != CORE]
    return max(foreign or plugins, key=_order)


def _order(plugin: Plugin) -> tuple[bool, str, str]:
    return plugin.distribution == LOCAL, plugin.distribution, plugin.name


def _remedy(plugins: list[Plugin], every: Collection[Plugin]) -> str:
    kept = next((plugin for plugin in plugins if canonical(plugin.distribution) == CORE), plugins[0])
    removed = [plugin for plugin in plugins if plugin != kept]
    for plugin in removed:
        if plugin.distribution == LOCAL:
            return f"remove the plugin that registry.add(name={plugin.name!r}) adds, or let it offer another name"
    if canonical(kept.distribution) == CORE:
        uninstall = f"pip uninstall {' '.join(dict.fromkeys(plugin.distribution for plugin in removed))}"
    else:
        uninstall = "uninstall one of them" if len(removed) == 1 else "uninstall all but one of them"
    words = [_word_for(plugin, every) for plugin in removed]
    if None in words:
        return f"{uninstall} (DWS_DISABLE_PLUGINS does not help, because it also disables others)"
    return f"{uninstall}, or set DWS_DISABLE_PLUGINS={','.join(filter(None, words))}"


def _word_for(removed: Plugin, every: Collection[Plugin]) -> str | None:
    """Return the first word for `DWS_DISABLE_PLUGINS` that disables this plugin and no other."""
    for word in (removed.name, canonical(removed.distribution)):
        if [plugin for plugin in every if word in plugin.names] == [removed]:
            return word
    return None


def not_found(
    kind: str, name: str, offers: Offers, *, problems: list[Problem], disabled: list[Plugin], where: object
) -> PluginNotFound:
    """Return the error for a name that no plugin offers.

    Args:
        kind: Noun of the record.
        name: The name.
        offers: All names of this kind.
        problems: The failures of plugins. The likely cause is named first, and is the `__cause__` of the error.
        disabled: The plugins that are disabled.
        where: The place of the name, or None.
    """
    package = _KNOWN_SCHEMES.get(name) if kind == "scheme" else None
    culprits = [problem for problem in problems if _resembles(problem, name, package)]
    candidates = [*offers, *(_KNOWN_SCHEMES if kind == "scheme" else ())]
    meant = [] if package or culprits else difflib.get_close_matches(name.lower(), candidates, n=1)
    guess = f". Did you mean {meant[0]!r}?" if meant else "."
    text = f"{str(where)!r}: " if where is not None else ""
    text += "".join(f"{_sentence(problem)} " for problem in culprits)
    text += f"{'N' if culprits else 'n'}o installed plugin offers {kind} {name!r}{guess}"
    text += _rest(offers, disabled, [problem for problem in problems if problem not in culprits])
    if culprits:
        error = PluginNotFound(text, fix=remedy_of(culprits[0]))
        error.__cause__ = culprits[0].error
        return error
    if any(word in _words(plugin) for plugin in disabled for word in (name, package)):
        return PluginNotFound(text, fix="remove the plugin from DWS_DISABLE_PLUGINS")
    fix = how_to_install(package) if package else f"correct the {kind}, or install the plugin that offers it"
    return PluginNotFound(text, fix=fix)


def _rest(offers: Offers, disabled: list[Plugin], problems: list[Problem]) -> str:
    """Return sentences about the plugins that do not concern the look-up."""
    installed = [f"{name} ({', '.join(str(plugin) for plugin, _ in offers[name])})" for name in sorted(offers)]
    more = f" and {len(installed) - _SHOWN} more" if len(installed) > _SHOWN else ""
    text = f" Installed: {', '.join(installed[:_SHOWN]) or 'none'}{more}."
    if disabled:
        text += f" Disabled: {', '.join(f'{plugin.name} ({plugin})' for plugin in disabled)}."
    if problems:
        text += f" Failed to load: {', '.join(f'{p.plugin.name} ({reason_of(p.error)})' for p in problems)}."
    return text


def remedy_of(problem: Problem) -> str:
    """Return how to repair a failed plugin."""
    error, distribution = problem.error, problem.plugin.distribution
    if isinstance(error, DWSError) and error.fix:
        return error.fix
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "dws_core":
        return f"upgrade {CORE} and {distribution}, so that their versions match"
    return f"repair the installation: {how_to_reinstall(distribution)}"


def _sentence(problem: Problem) -> str:
    text = reason_of(problem.error)
    return as_sentence(text if text.startswith(problem.plugin.title) else f"{problem.plugin.title} failed: {text}")


def _resembles(problem: Problem, name: str, package: str | None) -> bool:
    words = {*_words(problem.plugin), *map(str.lower, problem.names)}
    return package in words or bool(difflib.get_close_matches(name.lower(), words, n=1, cutoff=_ALIKE))


def _words(plugin: Plugin) -> set[str]:
    name, distribution = plugin.name.lower(), canonical(plugin.distribution)
    return {name, distribution, *re.split(r"[-_.+]+", f"{name}-{distribution}")} - {"dws", "core", "plugin", ""}
