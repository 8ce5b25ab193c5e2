"""Checks of a manager's arguments, so that a mistake shows at the construction and not at the first message."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, get_args

from dws_core._errors import ConfigurationError
from dws_core._limits.limits import Limits
from dws_core._log.contract import LogBroker
from dws_core._log.plain import BrokerInterface
from dws_core._log.records import History
from dws_core._plugins.registry import PluginRegistry
from dws_core._topics.interface import TopicMatcher
from dws_core._wire.codecs import Codec
from dws_core._wire.message import Untyped

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


class _Rule(NamedTuple):
    """What an argument must be, and how to correct it. The argument is given as an object, as users may not check types."""

    holds: Callable[[Any], bool]
    expected: str
    fix: str


def check_arguments(given: Mapping[str, object]) -> None:
    """Check the arguments of a manager.

    Args:
        given: The arguments by name.

    Raises:
        ConfigurationError: An argument has a wrong type or value, or two arguments contradict each other.
    """
    for name, rule in _RULES.items():
        if not rule.holds(value := given[name]):
            shown = repr(value) if name in _SHOWN else _kind(value)
            raise ConfigurationError(f"WebSocketManager: {name} is {shown}, expected {rule.expected}.", fix=rule.fix)
    for other in ("broker_class", "broker_url"):
        if given["broker"] is not None and given[other] is not None:
            raise ConfigurationError(f"WebSocketManager: both broker and {other} are given.", fix=f"remove {other}")
    for filter_, kept in (given["history"] or {}).items():  # type: ignore[attr-defined]  # a mapping, see _RULES
        if not isinstance(filter_, str) or not isinstance(kept, History):
            raise ConfigurationError(
                f"WebSocketManager: history[{filter_!r}] is {_kind(kept)}, expected a History for a filter.",
                fix=f"write history={{{str(filter_)!r}: History(size={kept if isinstance(kept, int) else 100})}}",
            )


def _kind(value: object) -> str:
    """Return words for a value without its text, which may be secret."""
    if value is None or isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and not value.strip():
        return "an empty text"
    if inspect.isclass(value):
        return f"the class {value.__qualname__}"
    if inspect.isfunction(value) or inspect.ismethod(value):
        return f"the function {value.__name__}({', '.join(inspect.signature(value).parameters)})"
    return f"a value of type {type(value).__qualname__}"


def _takes(count: int) -> Callable[[object], bool]:
    """Return a check whether a value can be called with a number of arguments."""

    def check(value: object) -> bool:
        if not callable(value):
            return value is None
        try:
            inspect.signature(value).bind(*range(count))
        except TypeError:
            return False
        except ValueError:  # a function without a signature, written in C
            return True
        return True

    return check


def _is_object(*types: type[Any]) -> Callable[[object], bool]:
    """Return a check whether a value is an instance. A class has the methods of a protocol too, but is none."""
    return lambda value: isinstance(value, types) and not inspect.isclass(value)


def _is_codec(value: object) -> bool:
    return isinstance(value, str) or (
        _is_object(Codec)(value) and isinstance(value.name, str) and _TOKEN.fullmatch(value.name) is not None  # type: ignore[attr-defined]
    )


_SHOWN: Final = ("untyped",)
"""Arguments whose values are shown. Others may contain a password or a token."""

_RULES: Final = {
    "broker_channel": _Rule(
        lambda value: isinstance(value, str) and bool(value.strip()) and value.isprintable(),
        "a name of printable characters",
        "give the channel a name, which all its nodes share, such as 'chat'",
    ),
    "broker_url": _Rule(
        lambda value: value is None or (isinstance(value, str) and bool(value)),
        "a URL",
        "pass broker_url='memory://' (or redis://…)",
    ),
    "broker_class": _Rule(
        lambda value: value is None or (inspect.isclass(value) and issubclass(value, BrokerInterface | LogBroker)),
        "a subclass of BrokerInterface or LogBroker",
        "pass a class, or an object as broker=..., or a URL as broker_url=...",
    ),
    "broker": _Rule(
        lambda value: value is None or _is_object(BrokerInterface, LogBroker)(value),
        "an object of a subclass of BrokerInterface or LogBroker",
        "pass an object, or a URL as broker_url=..., or a class as broker_class=...",
    ),
    "codec": _Rule(
        _is_codec,
        "the name of a codec, or an object with name, binary, encode and decode",
        "pass codec='json', or an object of your codec",
    ),
    "topic_matcher": _Rule(
        lambda value: isinstance(value, str) or _is_object(TopicMatcher)(value),
        "the name of a topic matcher, or an object with its methods",
        "pass topic_matcher='mqtt', or an object of your matcher",
    ),
    "verify_token": _Rule(
        _takes(1),
        "a function of one argument",
        "pass a function that receives a token and returns a Principal, or None if the token is not valid",
    ),
    "authorize": _Rule(
        _takes(3),
        "a function of three arguments",
        "pass a function that receives principal, action and topic, and returns whether the action is allowed",
    ),
    "history": _Rule(
        lambda value: value is None or isinstance(value, Mapping),
        "a History for each filter",
        "write history={'chat/#': History(size=100)}",
    ),
    "limits": _Rule(lambda value: value is None or isinstance(value, Limits), "a Limits", "write limits=Limits(...)"),
    "untyped": _Rule(
        lambda value: value in get_args(Untyped), "'refuse' or 'broadcast'", "write untyped='refuse', or omit it"
    ),
    "startup_patience_s": _Rule(
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value >= 0,
        "a number of seconds, zero or more",
        "write the number of seconds, such as startup_patience_s=30",
    ),
    "hello": _Rule(lambda value: isinstance(value, bool), "True or False", "write hello=True, or omit it"),
    "stamp_sender": _Rule(
        lambda value: isinstance(value, bool), "True or False", "write stamp_sender=True, or omit it"
    ),
    "adapt_server": _Rule(
        lambda value: isinstance(value, bool), "True or False", "write adapt_server=True, or omit it"
    ),
    "registry": _Rule(
        lambda value: value is None or isinstance(value, PluginRegistry),
        "a PluginRegistry",
        "omit it to use the installed plugins",
    ),
}
"""The rule of each argument. Others check `allowed_origins` and `authenticator`, and the topic matcher checks filters."""
