"""Names of the original library that live in plugins, and deprecated aliases."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from dws_core._errors import PluginNotFound
from dws_core._log.contract import LogBroker
from dws_core._log.plain import BrokerInterface
from dws_core._plugins.installing import how_to_install
from dws_core._plugins.registry import default_registry
from dws_core._url import BrokerURL

LAZY: Final = {"InMemoryBroker": ("dws_memory", "dws-memory"), "RedisBroker": ("dws_redis", "dws-redis")}
"""For each name, its module and the distribution to install."""


DEPRECATED: Final = {
    "BrokerT": "a TypeVar of your own",
    "is_valid_broker": "isinstance(value, (BrokerInterface, LogBroker))",
}
"""For each deprecated name, its replacement. They are removed in 0.4.0, not before 2027-06-01."""

BrokerT = TypeVar("BrokerT", bound=BrokerInterface)


def is_valid_broker(obj: object) -> bool:
    """Return whether an object is a broker."""
    return isinstance(obj, BrokerInterface | LogBroker)


def load_deprecated(name: str) -> Any:
    """Return a deprecated name, and warn with a `DeprecationWarning`."""
    text = f"dws_core.{name} is deprecated and will be removed in 0.4.0, not before 2027-06-01."
    warnings.warn(f"{text} Use {DEPRECATED[name]} instead", DeprecationWarning, stacklevel=3)
    return {"BrokerT": BrokerT, "is_valid_broker": is_valid_broker}[name]


def load_lazy(name: str) -> Any:
    """Import and return the broker class of a plugin.

    Raises:
        PluginNotFound: The plugin is not installed.
    """
    module, distribution = LAZY[name]
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise PluginNotFound(
            f"{name} is in {distribution}, which is not installed.", fix=how_to_install(distribution)
        ) from error


def create_broker(broker_url: str, **kwargs: Any) -> BrokerInterface | LogBroker:
    """Build the broker of a URL. Does no I/O.

    Args:
        broker_url: URL of the broker, for example `memory://`.
        **kwargs: Options to add to the query of the URL.

    Raises:
        PluginNotFound: No installed plugin handles the scheme.
        InvalidBrokerURL: The URL or an option is malformed.
    """
    query = urlencode(kwargs)
    text = broker_url + (("&" if "?" in broker_url else "?") + query if query else "")
    url = BrokerURL.parse(text)
    return default_registry().broker_class(url).from_url(url)
