"""The plugin registry: loads plugins, checks their records, and finds them by name."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, TypeAlias

import pluggy

from dws_core import hookspecs
from dws_core._auth.interface import AuthenticatorFactory
from dws_core._errors import ConfigurationError, PluginConflict, PluginLoadError, PluginNotFound
from dws_core._log.contract import LogBroker
from dws_core._log.plain import BrokerInterface
from dws_core._plugins.markers import PROJECT
from dws_core._plugins.specs import AuthenticatorSpec, BrokerSpec, CodecSpec, TopicMatcherSpec
from dws_core._topics.interface import TopicMatcher
from dws_core._url import BrokerURL
from dws_core._wire.codecs import Codec

logger = logging.getLogger("dws")

Spec: TypeAlias = BrokerSpec | CodecSpec | TopicMatcherSpec | AuthenticatorSpec

_KINDS: Final[dict[str, tuple[str, type[Any]]]] = {
    "dws_register_brokers": ("scheme", BrokerSpec),
    "dws_register_codecs": ("codec", CodecSpec),
    "dws_register_topic_matchers": ("topic matcher", TopicMatcherSpec),
    "dws_register_authenticators": ("authenticator", AuthenticatorSpec),
}

_KNOWN_SCHEMES: Final = {
    "memory": "dws-memory",
    "redis": "dws-redis",
    "rediss": "dws-redis",
    "unix": "dws-redis",
    "kafka": "dws-kafka",
    "amqp": "dws-amqp",
    "amqps": "dws-amqp",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """The origin of a plugin.

    Attributes:
        name: Name of the entry point.
        distribution: Name of the installed distribution.
        version: Version of the distribution. May be empty.
    """

    name: str
    distribution: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the list of plugins.

    Attributes:
        plugin: The plugin that offers the record.
        kind: `scheme`, `codec`, `topic matcher` or `authenticator`. `failed` for a plugin that could not be loaded.
        names: The URL schemes of a broker, or the name of any other record.
        summary: The record's summary, or the reason why the plugin failed.
    """

    plugin: Plugin
    kind: str
    names: tuple[str, ...]
    summary: str


class PluginRegistry:
    """All plugins and the records that they offer.

    Args:
        entry_points: Entry points of the plugins. If None, all installed entry points of the group `dws_core`.
        disabled: Names of plugins to ignore. If None, the comma-separated names in `DWS_DISABLE_PLUGINS`.
        trace: Whether to log all hook calls. If None, they are logged if `DWS_TRACE_PLUGINS` is `1`.
    """

    def __init__(
        self,
        *,
        entry_points: Iterable[EntryPoint] | None = None,
        disabled: Collection[str] | None = None,
        trace: bool | None = None,
    ) -> None:
        self._entry_points = entry_points
        if disabled is None:
            disabled = [name.strip() for name in os.environ.get("DWS_DISABLE_PLUGINS", "").split(",")]
        self._disabled = frozenset(disabled)
        self._failed: dict[Plugin, Exception] = {}
        self._specs: dict[str, dict[str, tuple[Plugin, Any]]] | None = None
        self._loaded: dict[tuple[str, str], Any] = {}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._plugins: dict[str, Plugin] = {}
        if os.environ.get("DWS_TRACE_PLUGINS") == "1" if trace is None else trace:
            self._manager.trace.root.setwriter(lambda text: logger.info("plugins: %s", text.rstrip()))
            self._manager.enable_tracing()

    def add(self, plugin: object, *, name: str, distribution: str = "(local)", version: str = "") -> None:
        """Add a plugin that has no entry point: a module or any object with hook implementations.

        Raises:
            PluginLoadError: The plugin does not match the hook specifications.
        """
        self._specs = None
        self._register(plugin, Plugin(name=name, distribution=distribution, version=version))

    # -- lookup

    def broker_spec(self, scheme: str, *, where: object = None) -> BrokerSpec:
        """Return the record of a URL scheme. If given, `where` is shown in the error.

        Raises:
            PluginNotFound: No installed plugin offers the scheme, or the plugin that offers it failed to load.
            PluginConflict: Two plugins offer the same scheme.
        """
        spec: BrokerSpec = self._find("dws_register_brokers", scheme, where)[1]
        return spec

    def broker_class(self, url: BrokerURL) -> type[BrokerInterface] | type[LogBroker]:
        """Return the broker class for a URL. Raises the errors of `broker_spec`, and `PluginLoadError`."""
        self.broker_spec(url.scheme, where=url)

        def fits(value: object) -> bool:
            return inspect.isclass(value) and issubclass(value, BrokerInterface | LogBroker)

        found: type[BrokerInterface] | type[LogBroker] = self._load(
            "dws_register_brokers", url.scheme, fits, "a subclass of LogBroker or BrokerInterface"
        )
        return found

    def codec(self, name: str) -> Codec:
        """Return a codec by name. Raises the same errors as `broker_class`."""
        found: Codec = self._load(
            "dws_register_codecs", name, lambda value: isinstance(value, Codec), "an object with encode and decode"
        )
        return found

    def codecs(self) -> dict[str, Codec]:
        """Return all codecs that can be loaded. Log the errors of all others."""
        found: dict[str, Codec] = {}
        for name in self._collected()["dws_register_codecs"]:
            try:
                found[name] = self.codec(name)
            except PluginLoadError as error:
                logger.warning("%s", error)
        return found

    def topic_matcher(self, name: str) -> TopicMatcher:
        """Return a topic matcher by name. Raises the same errors as `broker_class`."""
        found: TopicMatcher = self._load(
            "dws_register_topic_matchers", name, lambda value: isinstance(value, TopicMatcher), "a TopicMatcher"
        )
        return found

    def authenticator(self, name: str) -> AuthenticatorFactory:
        """Return the factory of an authenticator by name. Raises the same errors as `broker_class`."""
        found: AuthenticatorFactory = self._load("dws_register_authenticators", name, callable, "a callable")
        return found

    def rows(self) -> list[Row]:
        """Return the list of plugins. Failed plugins are at the end."""
        seen: dict[int, Row] = {}
        for hook, offers in self._collected().items():
            for plugin, spec in offers.values():
                row = Row(plugin=plugin, kind=_KINDS[hook][0], names=spec.names, summary=spec.summary)
                seen.setdefault(id(spec), row)
        failed = [
            Row(plugin=plugin, kind="failed", names=(), summary=_reason(error))
            for plugin, error in self._failed.items()
        ]
        return [*seen.values(), *failed]

    # -- collecting

    def _collected(self) -> dict[str, dict[str, tuple[Plugin, Any]]]:
        if self._specs is None:
            if self._entry_points is None or self._entry_points != ():
                self._load_entry_points()
            self._specs = {hook: self._collect(hook) for hook in _KINDS}
        return self._specs

    def _load_entry_points(self) -> None:
        found = entry_points(group=PROJECT) if self._entry_points is None else self._entry_points
        self._entry_points = ()
        for entry_point in found:
            if entry_point.name in self._disabled:
                continue
            dist = entry_point.dist
            plugin = Plugin(
                name=entry_point.name,
                distribution=dist.name if dist else entry_point.value,
                version=dist.version if dist else "",
            )
            try:
                self._register(entry_point.load(), plugin)
            except Exception as error:  # noqa: BLE001 -- reported later, the other plugins work
                self._failed[plugin] = error

    def _register(self, plugin_object: object, plugin: Plugin) -> None:
        try:
            key = self._manager.register(plugin_object, name=f"{plugin.distribution}:{plugin.name}")
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginLoadError(
                f"plugin {plugin.name!r} of {plugin} does not match the hook specifications: {error}.",
                fix="compare the arguments of its functions with dws_core/hookspecs.py",
            ) from error
        for name in dir(plugin_object):
            if self._manager.parse_hookimpl_opts(plugin_object, name) is not None and name not in _KINDS:
                self._manager.unregister(name=key)
                meant = difflib.get_close_matches(name, _KINDS, n=1, cutoff=0.0)[0]
                raise PluginLoadError(
                    f"plugin {plugin.name!r} of {plugin} implements unknown hook {name!r}. Did you mean {meant!r}?",
                    fix="rename the function",
                )
        self._plugins[str(key)] = plugin

    def _collect(self, hook: str) -> dict[str, tuple[Plugin, Any]]:
        offers: dict[str, tuple[Plugin, Any]] = {}
        for key, plugin in self._plugins.items():
            implementation = getattr(self._manager.get_plugin(key), hook, None)
            if implementation is None:
                continue
            try:
                specs = self._call(hook, key)
            except Exception as error:  # noqa: BLE001 -- as above
                self._failed[plugin] = error
                continue
            for spec in specs:
                for name in spec.names:
                    if name in offers:
                        raise _conflict(_KINDS[hook][0], name, offers[name][0], plugin)
                    offers[name] = (plugin, spec)
        return offers

    def _call(self, hook: str, key: str) -> list[Spec]:
        """Call one plugin's implementation through pluggy, so that the call can be traced."""
        others = [p for name, p in self._manager.list_name_plugin() if name != key]
        caller = self._manager.subset_hook_caller(hook, others)
        specs = [spec for result in caller() for spec in result]
        expected = _KINDS[hook][1]
        for spec in specs:
            if not isinstance(spec, expected):
                raise PluginLoadError(
                    f"{hook} returned a {type(spec).__name__}, expected {expected.__name__}.", fix="correct the plugin"
                )
        return specs

    # -- inside

    def _find(self, hook: str, name: str, where: object = None) -> tuple[Plugin, Any]:
        offers = self._collected()[hook]
        if name in offers:
            return offers[name]
        raise self._not_found(_KINDS[hook][0], name, offers, where)

    def _load(self, hook: str, name: str, fits: Callable[[object], bool], expected: str) -> Any:
        if (hook, name) in self._loaded:
            return self._loaded[hook, name]
        plugin, spec = self._find(hook, name)
        kind = _KINDS[hook][0]
        try:
            value = spec.load()
        except Exception as error:
            raise PluginLoadError(
                f"{kind} {name!r} of {plugin} could not be loaded: {_reason(error)}.",
                fix=f"repair the installation: pip install --force-reinstall {plugin.distribution}",
            ) from error
        if not fits(value):
            raise PluginLoadError(
                f"{kind} {name!r} of {plugin} loaded a {type(value).__name__}, expected {expected}.",
                fix="correct the plugin's load function",
            )
        self._loaded[hook, name] = value
        return value

    def _not_found(self, kind: str, name: str, offers: dict[str, tuple[Plugin, Any]], where: object) -> PluginNotFound:
        package = _KNOWN_SCHEMES.get(name) if kind == "scheme" else None
        candidates = [*offers, *(_KNOWN_SCHEMES if kind == "scheme" else ())]
        meant = difflib.get_close_matches(name, candidates, n=1)
        installed = ", ".join(f"{n} ({offers[n][0]})" for n in sorted(offers)) or "none"
        failed = ", ".join(f"{plugin.name} ({_reason(error)})" for plugin, error in self._failed.items())
        at = f"{str(where)!r}: " if where is not None else ""
        guess = f". Did you mean {meant[0]!r}?" if meant and not package else "."
        text = f"{at}no installed plugin offers {kind} {name!r}{guess} Installed: {installed}."
        if failed:
            text += f" Failed to load: {failed}."
        fix = f"pip install {package}" if package else f"correct the {kind}, or pip install the plugin that offers it"
        broken = next((plugin for plugin in self._failed if package == plugin.distribution), None)
        if broken is not None:
            fix = f"repair the installation: pip install --force-reinstall {package}"
        error = PluginNotFound(text, fix=fix)
        if broken is not None:
            error.__cause__ = self._failed[broken]
        return error


@lru_cache(maxsize=1)
def default_registry() -> PluginRegistry:
    """Return the registry of the installed plugins. It is built once for each process."""
    return PluginRegistry()


def _conflict(kind: str, name: str, first: Plugin, second: Plugin) -> ConfigurationError:
    return PluginConflict(
        f"{kind} {name!r} is offered by {first} and by {second}.",
        fix=f"uninstall one of them, or set DWS_DISABLE_PLUGINS={second.name}",
    )


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
