"""Values that the parts of the registry exchange: plugins, their problems, and rows of the list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dws_core._errors import DWSError
from dws_core._plugins.specs import AuthenticatorSpec, BrokerSpec, CodecSpec, TopicMatcherSpec

LOCAL: Final = "(local)"
"""The distribution of a plugin that was added without an entry point."""

CORE: Final = "dws-core"
"""The distribution of the built-in plugin."""

KINDS: Final[dict[str, tuple[str, type[Any]]]] = {
    "dws_register_brokers": ("scheme", BrokerSpec),
    "dws_register_codecs": ("codec", CodecSpec),
    "dws_register_topic_matchers": ("topic matcher", TopicMatcherSpec),
    "dws_register_authenticators": ("authenticator", AuthenticatorSpec),
}
"""For each hook, the noun of its records and their class."""


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

    @property
    def title(self) -> str:
        """The plugin and its distribution, for errors."""
        return f"plugin {self.name!r} of {self}"

    @property
    def names(self) -> frozenset[str]:
        """The names by which `DWS_DISABLE_PLUGINS` finds the plugin."""
        return frozenset({self.name, canonical(self.distribution)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A failure of a plugin, or of one of its functions or records.

    Attributes:
        plugin: The plugin.
        error: The exception of the plugin, or the error that describes the mistake.
        names: Names of the record that is lost, if they are known.
    """

    plugin: Plugin
    error: BaseException
    names: tuple[str, ...] = ()


Offers: TypeAlias = dict[str, list[tuple[Plugin, Any]]]
"""For each scheme or name, the plugins that offer it, with their records. More than one is a conflict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the list of plugins.

    Attributes:
        plugin: The plugin that offers the record.
        kind: `scheme`, `codec`, `topic matcher` or `authenticator`. `conflict` for a name that several plugins offer.
            `failed` for a plugin, a function or a record that cannot be used. `disabled` for a plugin that
            `DWS_DISABLE_PLUGINS` names.
        names: The URL schemes of a broker, or the name of any other record.
        summary: The record's summary, or the reason and the remedy of a failure.
    """

    plugin: Plugin
    kind: str
    names: tuple[str, ...]
    summary: str


def canonical(distribution: str) -> str:
    """Return the normalized name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def value_of_type(value: object) -> str:
    """Return words for a value that a plugin returned by mistake."""
    return f"a value of type {type(value).__name__}"


def as_sentence(text: str) -> str:
    """Return the text with a full stop at its end, unless it ends with another mark."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def reason_of(error: BaseException) -> str:
    """Return the text of a plugin's exception in one line. It never raises."""
    if isinstance(error, DWSError):
        text = error.message.rstrip(".")
    else:
        try:
            text = f"{type(error).__name__}: {error}"
        except Exception:  # noqa: BLE001 -- the exception of a plugin may be unable to show itself
            text = type(error).__name__
    return " ".join(text.split())
