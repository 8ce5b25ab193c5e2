"""Where plugins come from, and what is said when one is missing, broken or contested. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dws_core._errors import DWSError, PluginConflict, PluginLoadError, PluginNotFound

_KNOWN: Final[Mapping[str, Mapping[str, str]]] = {
    "scheme": {
        "memory": "dws-memory",
        "redis": "dws-redis",
        "rediss": "dws-redis",
        "unix": "dws-redis",
        "kafka": "dws-kafka",
        "amqp": "dws-amqp",
        "amqps": "dws-amqp",
    },
    "codec": {"json": "dws-core", "msgpack": "dws-core"},
    "topic matcher": {"mqtt": "dws-core"},
    "authenticator": {"oauth2-bearer": "dws-core"},
}
"""For each noun, what is offered by a package of ours: someone who asks for it is told what to install."""

_LONGEST_REASON: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """Where a plugin comes from.

    Attributes:
        name: Name of the entry point.
        distribution: Name of the installed distribution.
        version: Its version; may be empty.
    """

    name: str
    distribution: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()

    def is_called(self, names: Collection[str]) -> bool:
        """Say whether the plugin, or its distribution, is among the names."""
        return self.name in names or normalize(self.distribution) in map(normalize, names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A look-up that found nothing, and what else is known.

    Attributes:
        noun: What was looked for: `scheme`, `codec`, `topic matcher`, `authenticator`.
        name: The name that nobody offers.
        where: What asked for it, such as a masked URL; may be empty.
        offers: The names that are offered, and by whom.
        failed: Plugins that could not be loaded, and why.
        disabled: Plugins that were left out on demand.
    """

    noun: str
    name: str
    where: str = ""
    offers: Mapping[str, Plugin]
    failed: Mapping[Plugin, Exception]
    disabled: Collection[Plugin]


def normalize(distribution: str) -> str:
    """Return a distribution's name so that equal ones compare equal (PyPA name normalization)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def reason(error: BaseException) -> str:
    """Return one line on why something failed: the class and text of a foreign error, the message of ours."""
    text = error.message.rstrip(".") if isinstance(error, DWSError) else f"{type(error).__name__}: {error}"
    line = " ".join(text.split()).rstrip(":")
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "..."


def not_found(missing: Missing) -> PluginNotFound:
    """Compose the error: the plugin is broken, disabled, not installed, or its name is misspelt."""
    verdict, fix, cause = _verdict(missing)
    where = f"{missing.where!r}: " if missing.where else ""
    said = [f"{where}no installed plugin offers {missing.noun} {missing.name!r}{verdict}"]
    said.append(f"Installed: {_listed(f'{name} ({missing.offers[name]})' for name in sorted(missing.offers))}.")
    if missing.failed:
        said.append(f"Failed to load: {_listed(f'{p.name} ({reason(e)})' for p, e in missing.failed.items())}.")
    if missing.disabled:
        said.append(f"Disabled: {_listed(f'{p.name} ({p})' for p in missing.disabled)}.")
    error = PluginNotFound(" ".join(said), fix=fix)
    error.__cause__ = cause
    return error


def _verdict(missing: Missing) -> tuple[str, str, Exception | None]:
    """Return how the first sentence ends, the fix and the cause."""
    known = _KNOWN[missing.noun]
    package = known.get(missing.name)
    names = {missing.name, f"dws-{missing.name}", *([package] if package else [])}
    for plugin, error in missing.failed.items():
        if plugin.is_called(names):
            fix = error.fix if isinstance(error, DWSError) else repair(plugin, error)
            return f": {plugin.name!r} of {plugin} failed to load.", fix, error
    for plugin in missing.disabled:
        if plugin.is_called(names):
            return (
                f": {plugin.name!r} of {plugin} is disabled.",
                f"take {plugin.name!r} out of DWS_DISABLE_PLUGINS",
                None,
            )
    if package:
        return ".", f"pip install {package}", None
    fix = f"correct the {missing.noun}, or pip install the plugin that offers it"
    close = difflib.get_close_matches(missing.name.lower(), [*missing.offers, *known], n=1)
    if not close:
        return ".", fix, None
    if close[0] not in missing.offers:
        fix = f"correct the {missing.noun}, and pip install {known[close[0]]}"
    return f"; did you mean {close[0]!r}?", fix, None


def repair(plugin: Plugin, error: BaseException) -> str:
    """Return what to do about a plugin whose own code failed."""
    if isinstance(error, ImportError):
        return f"repair the installation: pip install --force-reinstall {plugin.distribution}"
    return f"correct plugin {plugin.name!r}, or report this to the authors of {plugin.distribution}"


def conflict(noun: str, name: str, owners: Sequence[Plugin]) -> PluginConflict:
    """Compose the error for a name that several plugins offer, or one plugin twice."""
    first, last = owners[0], owners[-1]
    if first == last:
        text = f"{noun} {name!r} is offered twice by {last} (plugin {last.name!r})."
        return PluginConflict(text, fix=f"correct plugin {last.name!r}: each {noun} once")
    switch = normalize(last.distribution) if first.name == last.name else last.name
    return PluginConflict(
        f"{noun} {name!r} is offered by {' and by '.join(map(str, owners))}.",
        fix=f"uninstall all but one, or set DWS_DISABLE_PLUGINS={switch}",
    )


def load_failed(noun: str, name: str, plugin: Plugin, error: Exception) -> PluginLoadError:
    """Compose the error for a record whose `load` raised."""
    text = f"{noun} {name!r} of {plugin} could not be loaded: {reason(error)}."
    return PluginLoadError(text, fix=repair(plugin, error))


def load_misfit(noun: str, name: str, plugin: Plugin, misfit: str) -> PluginLoadError:
    """Compose the error for a record whose `load` returned something else than promised."""
    text = f"{noun} {name!r} of {plugin} cannot be used: load() returned {misfit}."
    return PluginLoadError(text, fix=f"correct the load function of plugin {plugin.name!r}")


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts) or "none"
