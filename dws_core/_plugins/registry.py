"""The plugin registry: loads plugins, checks their records, and finds them by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint
from typing import Any

from dws_core._auth.interface import Authenticator, TokenVerifier
from dws_core._errors import ConfigurationError
from dws_core._log.contract import LogBroker
from dws_core._log.plain import BrokerInterface
from dws_core._plugins.discovery import Discovered, disabled_in_environment, discover
from dws_core._plugins.hooks import Hooks
from dws_core._plugins.loading import build_authenticator, load_record, split_name
from dws_core._plugins.records import KINDS, LOCAL, Offers, Plugin, Problem, Row, as_sentence, reason_of
from dws_core._plugins.specs import BrokerSpec
from dws_core._plugins.texts import conflict, disposable, not_found, remedy_of
from dws_core._topics.interface import TopicMatcher
from dws_core._url import BrokerURL
from dws_core._wire.codecs import Codec

logger = logging.getLogger("dws")


@dataclass(frozen=True, slots=True)
class _Collected:
    """The records of all plugins by hook and name, and all failures."""

    offers: dict[str, Offers]
    problems: list[Problem]


class PluginRegistry:
    """All plugins and the records that they offer.

    A plugin that fails, and a name that two plugins offer, are errors of the look-ups that concern them. All other
    look-ups work. `python -m dws_core plugins` lists the failures.

    Args:
        entry_points: Entry points of the plugins. If None, all installed entry points of the group `dws_core`.
        disabled: Names of plugins to ignore, of entry points or of distributions. If None, the comma-separated names in
            `DWS_DISABLE_PLUGINS`.
        trace: Whether to log all hook calls. If None, they are logged if `DWS_TRACE_PLUGINS` is `1`.
    """

    def __init__(
        self,
        *,
        entry_points: Iterable[EntryPoint] | None = None,
        disabled: Collection[str] | None = None,
        trace: bool | None = None,
    ) -> None:
        self._entry_points = None if entry_points is None else list(entry_points)
        self._disabled = disabled_in_environment() if disabled is None else frozenset(disabled)
        self._hooks = Hooks(trace=os.environ.get("DWS_TRACE_PLUGINS") == "1" if trace is None else trace)
        self._local: list[tuple[Plugin, object]] = []
        self._discovered: Discovered | None = None
        self._collected_records: _Collected | None = None
        self._loaded: dict[tuple[str, str, tuple[tuple[str, str], ...]], Any] = {}

    def add(self, plugin: object, *, name: str, distribution: str = LOCAL, version: str = "") -> None:
        """Add a plugin that has no entry point: a module or any object with hook implementations.

        Raises:
            PluginLoadError: The plugin does not match the hook specifications.
        """
        origin = Plugin(name=name, distribution=distribution, version=version)
        for problem in self._hooks.functions(origin, plugin)[1]:
            raise problem.error
        self._local.append((origin, plugin))
        self._collected_records = None
        self._loaded.clear()

    # -- lookup

    def broker_spec(self, scheme: str, *, where: object = None) -> BrokerSpec:
        """Return the record of a URL scheme. If given, `where` is shown in the error.

        Raises:
            PluginNotFound: No installed plugin offers the scheme. If a plugin with a similar name failed, the error
                names it first, and its exception is the `__cause__`.
            PluginConflict: Two plugins offer the scheme.
        """
        spec: BrokerSpec = self._find("dws_register_brokers", scheme, where)[1]
        return spec

    def broker_class(self, url: BrokerURL) -> type[BrokerInterface] | type[LogBroker]:
        """Return the broker class for a URL.

        Raises:
            PluginNotFound: See `broker_spec`.
            PluginConflict: See `broker_spec`.
            PluginLoadError: The class cannot be imported, or lacks a method.
        """
        self.broker_spec(url.scheme, where=url)
        found: type[BrokerInterface] | type[LogBroker] = self._load("dws_register_brokers", url.scheme)
        return found

    def codec(self, name: str) -> Codec:
        """Return a codec by name, optionally with options: `cbor?canonical=yes`.

        Raises the errors of `broker_class`, and `ConfigurationError` for a wrong option.
        """
        found: Codec = self._load("dws_register_codecs", name)
        return found

    def codecs(self) -> dict[str, Codec]:
        """Return all codecs that can be loaded, with default options. Log the errors of all others."""
        found: dict[str, Codec] = {}
        for name in self._collected().offers["dws_register_codecs"]:
            try:
                found[name] = self.codec(name)
            except ConfigurationError as error:
                logger.warning("%s", error)
        return found

    def topic_matcher(self, name: str) -> TopicMatcher:
        """Return a topic matcher by name, optionally with options. Raises the same errors as `codec`."""
        found: TopicMatcher = self._load("dws_register_topic_matchers", name)
        return found

    def authenticator(self, name: str, *, verify: TokenVerifier | None = None) -> Authenticator:
        """Build an authenticator by name, optionally with options: `api-key?header=x-key`.

        Raises the errors of `codec`, and `ConfigurationError` if the authenticator needs `verify` and there is none, or
        if it is given but not used.
        """
        plain = split_name("dws_register_authenticators", name)[0]
        plugin, spec = self._find("dws_register_authenticators", plain)
        factory = self._load("dws_register_authenticators", name)
        return build_authenticator(plain, plugin, spec, factory, verify)

    def rows(self) -> list[Row]:
        """Return the list of plugins. Conflicts, failed plugins and disabled plugins are at the end."""
        collected = self._collected()
        records: dict[int, Row] = {}
        conflicts: list[Row] = []
        for hook, offers in collected.offers.items():
            kind = KINDS[hook][0]
            for name, offering in offers.items():
                for plugin, spec in offering:
                    records.setdefault(id(spec), Row(plugin=plugin, kind=kind, names=spec.names, summary=spec.summary))
                if len(offering) > 1:
                    plugins = [plugin for plugin, _ in offering]
                    error = conflict(kind, name, plugins, self._plugins())
                    text = f"{error.message} Fix: {error.fix}"
                    conflicts.append(Row(plugin=disposable(plugins), kind="conflict", names=(name,), summary=text))
        failed = [
            Row(
                plugin=p.plugin,
                kind="failed",
                names=p.names,
                summary=f"{as_sentence(reason_of(p.error))} Fix: {remedy_of(p)}",
            )
            for p in collected.problems
        ]
        disabled = [
            Row(plugin=plugin, kind="disabled", names=(), summary="Named in DWS_DISABLE_PLUGINS.")
            for plugin in self._found().disabled
        ]
        return [*records.values(), *conflicts, *failed, *disabled]

    # -- inside

    def _found(self) -> Discovered:
        if self._discovered is None:
            self._discovered = discover(self._entry_points, self._disabled)
        return self._discovered

    def _plugins(self) -> list[Plugin]:
        return [plugin for plugin, _ in (*self._found().plugins, *self._local)]

    def _collected(self) -> _Collected:
        if self._collected_records is None:
            found = self._found()
            problems = list(found.problems)
            offers = self._hooks.collect([*found.plugins, *self._local], problems)
            self._collected_records = _Collected(offers, problems)
        return self._collected_records

    def _find(self, hook: str, name: str, where: object = None) -> tuple[Plugin, Any]:
        collected = self._collected()
        offers, kind = collected.offers[hook], KINDS[hook][0]
        offering = offers.get(name, [])
        if len(offering) > 1:
            raise conflict(kind, name, [plugin for plugin, _ in offering], self._plugins())
        if offering:
            return offering[0]
        disabled = self._found().disabled
        raise not_found(kind, name, offers, problems=collected.problems, disabled=disabled, where=where)

    def _load(self, hook: str, text: str) -> Any:
        name, options = split_name(hook, text)
        key = (hook, name, tuple(sorted(options.items())))
        if key not in self._loaded:
            plugin, spec = self._find(hook, name)
            self._loaded[key] = load_record(hook, name, plugin, spec, options)
        return self._loaded[key]


@lru_cache(maxsize=1)
def default_registry() -> PluginRegistry:
    """Return the registry of the installed plugins. It is built once for each process."""
    return PluginRegistry()
