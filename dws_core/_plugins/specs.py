"""The records that hooks return: frozen, and checked by the registry, so that one mistake disables one record."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from dws_core._auth.interface import AuthenticatorFactory
from dws_core._errors import ConfigurationError
from dws_core._log.contract import LogBroker, LogCapabilities
from dws_core._log.plain import BrokerCapabilities, BrokerInterface
from dws_core._topics.interface import TopicMatcher
from dws_core._wire.codecs import Codec

VerifyToken: TypeAlias = Literal["required", "optional", "unused"]

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_NAME: Final = re.compile(r"[a-z][a-z0-9.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSpec:
    """A broker that a plugin offers.

    Attributes:
        schemes: One or more URL schemes in lower case (RFC 3986 §3.1).
        load: Function that imports the broker and returns its class.
        capabilities: Guarantees of the broker, the same object as `capabilities` of the class.
        summary: One sentence for the list of plugins.
    """

    schemes: tuple[str, ...]
    load: Callable[[], type[BrokerInterface] | type[LogBroker]]
    capabilities: BrokerCapabilities | LogCapabilities
    summary: str

    def check(self) -> None:
        """Raise an error if an attribute is malformed. The registry calls it for each record.

        Raises:
            ConfigurationError: An attribute is malformed. The text names it and the expected value.
        """
        schemes: object = self.schemes  # a plugin may not be type-checked
        if not isinstance(schemes, tuple) or not schemes:
            raise _wrong(self, "schemes", schemes, "a tuple with at least one scheme")
        for scheme in schemes:
            if not isinstance(scheme, str) or not _SCHEME.fullmatch(scheme):
                raise _wrong(self, "schemes", scheme, "lower-case schemes such as 'redis' (RFC 3986 section 3.1)")
        if not isinstance(self.capabilities, BrokerCapabilities | LogCapabilities):
            raise _wrong(self, "capabilities", self.capabilities, "BrokerCapabilities or LogCapabilities")
        _check_common(self, self.load, self.summary)

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which the broker is found."""
        return self.schemes


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecSpec:
    """A codec that a plugin offers.

    Attributes:
        name: Lower-case name, the same as `name` of the codec.
        load: Function that imports the codec and returns an instance.
        content_type: Media type of encoded messages (RFC 6838).
        summary: One sentence for the list of plugins.
        options: Dataclass whose fields all have defaults, or None. If given, `load` receives an instance of it, with the
            options that the application wrote: `codec="cbor?canonical=yes"`. Types and units are those of
            `BrokerURL.read_options`. If None, every option is refused.
    """

    name: str
    load: Callable[[], Codec] | Callable[[Any], Codec]
    content_type: str
    summary: str
    options: type[Any] | None = None

    def check(self) -> None:
        """Raise an error if an attribute is malformed. The registry calls it for each record.

        Raises:
            ConfigurationError: An attribute is malformed. The text names it and the expected value.
        """
        _check_name(self, self.name)
        content_type: object = self.content_type
        if not isinstance(content_type, str) or "/" not in content_type:
            raise _wrong(self, "content_type", self.content_type, "a media type such as 'application/json'")
        _check_common(self, self.load, self.summary)
        _check_options(self, self.options)

    @property
    def names(self) -> tuple[str, ...]:
        """The name by which it is found, as a tuple."""
        return (self.name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicMatcherSpec:
    """A topic language that a plugin offers.

    Attributes:
        name: Lower-case name.
        load: Function that imports the matcher and returns an instance.
        summary: One sentence for the list of plugins.
        spec_url: Specification of the language: a URL, or a title and section. May be empty.
        options: Dataclass whose fields all have defaults, or None. If given, `load` receives an instance of it, with the
            options that the application wrote: `topic_matcher="nats?wildcards=no"`. Types and units are those of
            `BrokerURL.read_options`. If None, every option is refused.
    """

    name: str
    load: Callable[[], TopicMatcher] | Callable[[Any], TopicMatcher]
    summary: str
    spec_url: str = ""
    options: type[Any] | None = None

    def check(self) -> None:
        """Raise an error if an attribute is malformed. The registry calls it for each record.

        Raises:
            ConfigurationError: An attribute is malformed. The text names it and the expected value.
        """
        _check_name(self, self.name)
        _check_common(self, self.load, self.summary)
        _check_options(self, self.options)

    @property
    def names(self) -> tuple[str, ...]:
        """The name by which it is found, as a tuple."""
        return (self.name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatorSpec:
    """An authenticator that a plugin offers.

    Attributes:
        name: Lower-case name.
        load: Function that imports the authenticator and returns its factory, which is called with the keyword argument
            `verify`, or without arguments if `verify_token` is `unused`.
        summary: One sentence for the list of plugins.
        verify_token: Use of the application's `verify_token`. `required`: a manager without it is refused. `optional`:
            the factory may receive None. `unused`: a manager with it is refused.
        options: Dataclass whose fields all have defaults, or None. If given, `load` receives an instance of it, with the
            options that the application wrote: `authenticator="api-key?header=x-key"`. Types and units are those of
            `BrokerURL.read_options`. If None, every option is refused.
    """

    name: str
    load: Callable[[], AuthenticatorFactory] | Callable[[Any], AuthenticatorFactory]
    summary: str
    verify_token: VerifyToken = "optional"  # noqa: S105 -- not a secret
    options: type[Any] | None = None

    def check(self) -> None:
        """Raise an error if an attribute is malformed. The registry calls it for each record.

        Raises:
            ConfigurationError: An attribute is malformed. The text names it and the expected value.
        """
        _check_name(self, self.name)
        verify_token: object = self.verify_token
        if verify_token not in get_args(VerifyToken):
            raise _wrong(self, "verify_token", verify_token, f"one of {', '.join(get_args(VerifyToken))}")
        _check_common(self, self.load, self.summary)
        _check_options(self, self.options)

    @property
    def names(self) -> tuple[str, ...]:
        """The name by which it is found, as a tuple."""
        return (self.name,)


def _check_name(spec: object, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _wrong(spec, "name", name, "a lower-case name such as 'json'")


def _check_common(spec: object, load: object, summary: object) -> None:
    if not callable(load):
        raise _wrong(spec, "load", load, "a function without arguments")
    if not isinstance(summary, str) or not summary.strip():
        raise _wrong(spec, "summary", summary, "one sentence")


def _check_options(spec: object, options: object) -> None:
    if options is None:
        return
    if not isinstance(options, type) or not dataclasses.is_dataclass(options):
        raise _wrong(spec, "options", options, "a dataclass")
    for field in dataclasses.fields(options):
        if field.init and field.default is field.default_factory is dataclasses.MISSING:
            raise _wrong(
                spec, "options", options, f"a dataclass whose fields all have defaults, {field.name!r} has none"
            )


def _wrong(spec: object, field: str, value: object, expected: str) -> ConfigurationError:
    kind = type(spec).__name__
    return ConfigurationError(
        f"{kind}.{field} is {value!r}, expected {expected}.", fix=f"correct the {kind} in the plugin"
    )
