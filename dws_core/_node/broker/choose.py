"""Chooses the broker from the arguments of a manager."""

from __future__ import annotations

from typing import Any

from dws_core._errors import ConfigurationError
from dws_core._log.contract import LogBroker
from dws_core._log.plain import BrokerInterface
from dws_core._plugins.registry import PluginRegistry
from dws_core._url import BrokerURL


def choose_broker(
    plugins: PluginRegistry,
    *,
    url: str | None,
    broker_class: type[BrokerInterface] | type[LogBroker] | None,
    broker: BrokerInterface | LogBroker | None,
    kwargs: dict[str, Any],
) -> BrokerInterface | LogBroker:
    """Return the broker: the given object, the class built from its arguments or the URL, or the plugin of the URL's scheme.

    Raises:
        ConfigurationError: No broker is named, unknown or wrong arguments are given, or the scheme's plugin is not installed.
        InvalidBrokerURL: The URL is malformed, or the plugin refuses an option.
    """
    if broker_class is not None:
        if url is None or kwargs or not _reads_urls(broker_class):
            return _build(broker_class, kwargs)
        return broker_class.from_url(BrokerURL.parse(url))
    if kwargs:
        raise ConfigurationError(
            f"WebSocketManager got unknown arguments: {', '.join(kwargs)}.",
            fix="remove them, or pass broker_class, which receives them",
        )
    if broker is not None:
        return broker
    if url is None:
        raise ConfigurationError(
            "WebSocketManager has no broker.", fix="pass broker_url='memory://' (or redis://…), or broker=..."
        )
    parsed = BrokerURL.parse(url)
    return plugins.broker_class(parsed).from_url(parsed)


def _build(
    broker_class: type[BrokerInterface] | type[LogBroker], kwargs: dict[str, Any]
) -> BrokerInterface | LogBroker:
    try:
        return broker_class(**kwargs)
    except TypeError as error:
        raise ConfigurationError(
            f"broker_class {broker_class.__qualname__} cannot be built from the keyword arguments: {error}.",
            fix="pass its arguments to WebSocketManager by name, or build an object and pass it as broker=...",
        ) from error


def _reads_urls(broker_class: type[BrokerInterface] | type[LogBroker]) -> bool:
    """Return whether a class has its own `from_url`. That of `BrokerInterface` uses nothing of a URL."""
    return any("from_url" in vars(base) for base in broker_class.__mro__ if base is not BrokerInterface)
