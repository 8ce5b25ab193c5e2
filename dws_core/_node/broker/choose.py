"""Which broker a manager's arguments mean."""

from __future__ import annotations

from typing import Any

from dws_core._errors import ConfigurationError
from dws_core._log.contract import LogBroker
from dws_core._log.plain import BrokerInterface
from dws_core._plugins.registry import PluginRegistry
from dws_core._url import BrokerURL


def choose_broker(
    plugins: PluginRegistry,
    url: str | None,
    broker_class: type[BrokerInterface] | type[LogBroker] | None,
    broker: BrokerInterface | LogBroker | None,
    kwargs: dict[str, Any],
) -> BrokerInterface | LogBroker:
    """Return the broker: an object as it is, a class built with its arguments or from the URL, or what the URL's scheme names.

    Raises:
        ConfigurationError: None is named, unknown arguments are given, or the scheme's plugin is not installed.
        InvalidBrokerURL: The URL is malformed, or the plugin refuses an option.
    """
    if broker_class is not None:
        if url is None or kwargs or not _reads_urls(broker_class):
            return broker_class(**kwargs)
        return broker_class.from_url(BrokerURL.parse(url))
    if kwargs:
        raise ConfigurationError(
            f"WebSocketManager got unknown arguments: {', '.join(kwargs)}.",
            fix="remove them; extra arguments are for broker_class only",
        )
    if broker is not None:
        return broker
    if url is None:
        raise ConfigurationError(
            "WebSocketManager has no broker.", fix="pass broker_url='memory://' (or redis://…), or broker=..."
        )
    parsed = BrokerURL.parse(url)
    return plugins.broker_class(parsed).from_url(parsed)


def _reads_urls(broker_class: type[BrokerInterface] | type[LogBroker]) -> bool:
    """Say whether a class has a `from_url` of its own; that of `BrokerInterface` takes nothing from a URL."""
    return any("from_url" in vars(base) for base in broker_class.__mro__ if base is not BrokerInterface)
