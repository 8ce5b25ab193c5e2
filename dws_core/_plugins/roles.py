"""What a plugin can be: for each hook, its record and what the record's `load` must return. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from dws_core._auth.interface import AuthenticatorFactory
from dws_core._log.interface import BrokerInterface, LogBroker, LogCapabilities
from dws_core._plugins.specs import AuthenticatorSpec, BrokerSpec, CodecSpec, TopicMatcherSpec
from dws_core._topics.interface import TopicMatcher
from dws_core._wire.codecs import Codec

S = TypeVar("S", bound=BrokerSpec | CodecSpec | TopicMatcherSpec | AuthenticatorSpec)
V = TypeVar("V")

BrokerClass: TypeAlias = type[BrokerInterface] | type[LogBroker]


@dataclass(frozen=True, slots=True, kw_only=True)
class Role(Generic[S, V]):
    """One way to extend dws.

    Attributes:
        hook: Name of the hook.
        noun: What the offered names are called in texts.
        record: Class of what the hook returns.
        misfit: Says what is wrong with what the record's `load` returned (a noun phrase), or None; takes the value
            and the name it was looked up by.
    """

    hook: str
    noun: str
    record: type[S]
    misfit: Callable[[object, str], str | None]


def _broker_misfit(value: object, _name: str) -> str | None:
    if not (inspect.isclass(value) and issubclass(value, BrokerInterface | LogBroker)):
        return f"{_shown(value)}, expected a subclass of LogBroker or BrokerInterface"
    if missing := sorted(getattr(value, "__abstractmethods__", ())):
        return f"{value.__qualname__}, which does not implement {', '.join(missing)}"
    if issubclass(value, LogBroker) and not isinstance(getattr(value, "capabilities", None), LogCapabilities):
        return f"{value.__qualname__}, whose attribute capabilities is no LogCapabilities"
    return None


def _codec_misfit(value: object, name: str) -> str | None:
    if inspect.isclass(value) or not isinstance(value, Codec):
        return f"{_shown(value)}, expected an object with name, binary, encode and decode"
    if value.name != name:
        return f"a codec of the name {value.name!r}, expected {name!r}"
    return None


def _matcher_misfit(value: object, _name: str) -> str | None:
    if inspect.isclass(value) or not isinstance(value, TopicMatcher):
        return f"{_shown(value)}, expected an object with the methods of TopicMatcher"
    return None


def _authenticator_misfit(value: object, _name: str) -> str | None:
    if not callable(value):
        return f"{_shown(value)}, expected a callable that takes verify= and returns an Authenticator"
    return None


def _shown(value: object) -> str:
    return f"the class {value.__qualname__}" if inspect.isclass(value) else f"an object of type {type(value).__name__}"


BROKERS: Final = Role[BrokerSpec, BrokerClass](
    hook="dws_register_brokers", noun="scheme", record=BrokerSpec, misfit=_broker_misfit
)
CODECS: Final = Role[CodecSpec, Codec](hook="dws_register_codecs", noun="codec", record=CodecSpec, misfit=_codec_misfit)
TOPIC_MATCHERS: Final = Role[TopicMatcherSpec, TopicMatcher](
    hook="dws_register_topic_matchers", noun="topic matcher", record=TopicMatcherSpec, misfit=_matcher_misfit
)
AUTHENTICATORS: Final = Role[AuthenticatorSpec, AuthenticatorFactory](
    hook="dws_register_authenticators", noun="authenticator", record=AuthenticatorSpec, misfit=_authenticator_misfit
)
ROLES: Final = (BROKERS, CODECS, TOPIC_MATCHERS, AUTHENTICATORS)
