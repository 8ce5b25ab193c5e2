"""Wrong arguments of a manager are refused when it is constructed."""

from __future__ import annotations

from typing import Any

import pytest
from dws_memory import InMemoryBroker

from dws_core import BrokerInterface, ConfigurationError, History, InvalidFilter, Limits, Principal, WebSocketManager
from dws_core._node.arguments import _RULES, check_arguments
from dws_core._wire.codecs import JSONCodec
from dws_core.plugin import LogBroker, PluginRegistry

VALID: dict[str, Any] = {
    "broker_channel": "c", "broker_url": "memory://", "broker_class": None, "broker": None, "codec": "json",
    "topic_matcher": "mqtt", "verify_token": None, "authorize": None, "history": None, "limits": None,
    "untyped": "refuse", "startup_patience_s": 0.0, "adapt_server": True, "hello": False, "stamp_sender": False, "registry": None,
}  # fmt: skip


class Unnamed(JSONCodec):
    name = "two words"


def _verify(token: str) -> Principal | None:
    return None


class Verifier:
    def verify(self, token: str) -> Principal | None:
        return None

    async def __call__(self, token: str) -> Principal | None:
        return None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"broker_channel": ""}, "broker_channel is an empty text"),
        ({"broker_channel": " "}, "broker_channel is an empty text"),
        ({"broker_channel": "a\0b"}, "broker_channel is a value of type str, expected a name of printable characters"),
        ({"broker_channel": "\ud800"}, "expected a name of printable characters"),
        ({"broker_channel": None}, "broker_channel is None"),
        ({"broker_channel": 5}, "broker_channel is 5"),
        ({"broker_channel": b"chat"}, "broker_channel is a value of type bytes"),
        ({"broker_url": ""}, "broker_url is an empty text"),
        ({"broker_url": 6379}, "broker_url is 6379"),
        ({"broker_url": None}, "has no broker"),
        ({"broker_class": "InMemoryBroker"}, "broker_class is a value of type str"),
        ({"broker_class": InMemoryBroker()}, "broker_class is a value of type MemoryBroker"),
        ({"broker_class": dict}, "broker_class is the class dict"),
        ({"broker_class": LogBroker, "broker_url": None}, "broker_class LogBroker cannot be built"),
        ({"broker_class": InMemoryBroker, "shards": 3}, "broker_class MemoryBroker cannot be built .* 'shards'"),
        ({"broker": "memory://", "broker_url": None}, "broker is a value of type str"),
        ({"broker": InMemoryBroker, "broker_url": None}, "broker is the class MemoryBroker"),
        ({"broker": InMemoryBroker()}, "both broker and broker_url are given"),
        ({"broker": InMemoryBroker(), "broker_url": None, "broker_class": InMemoryBroker}, "both broker and broker_class"),
        ({"codec": None}, "codec is None"),
        ({"codec": JSONCodec}, "codec is the class JSONCodec"),
        ({"codec": Unnamed()}, "codec is a value of type Unnamed"),
        ({"codec": "nope"}, "'nope'"),
        ({"topic_matcher": None}, "topic_matcher is None"),
        ({"topic_matcher": object()}, "topic_matcher is a value of type object"),
        ({"authenticator": 5}, "authenticator int"),
        ({"verify_token": "x"}, "verify_token is a value of type str"),
        ({"verify_token": lambda: None}, r"verify_token is the function <lambda>\(\), expected"),
        ({"verify_token": lambda token, more: None}, r"verify_token is the function <lambda>\(token, more\), expected"),
        ({"authorize": Verifier().verify}, r"authorize is the function verify\(token\), expected"),
        ({"verify_token": True}, "verify_token is True"),
        ({"authorize": "x"}, "authorize is a value of type str"),
        ({"authorize": True}, "authorize is True"),
        ({"authorize": lambda principal: True}, "authorize is"),
        ({"allowed_origins": "https://a.example"}, "allowed_origins='https://a.example' is one string"),
        ({"allowed_origins": None}, "allowed_origins is a value of type NoneType"),
        ({"allowed_origins": 5}, "allowed_origins is a value of type int"),
        ({"allowed_origins": b"*"}, "allowed_origins is a value of type bytes"),
        ({"allowed_origins": [5]}, "allowed_origins has the entry 5"),
        ({"history": {"a/#": 5}}, r"history\['a/#'\] is 5, .* Fix: write history=\{'a/#': History\(size=5\)\}"),
        ({"history": {"a/#": None}}, r"history\['a/#'\] is None"),
        ({"history": {5: History()}}, r"history\[5\] is a value of type History"),
        ({"history": History(size=5)}, "history is a value of type History, expected a History for each filter"),
        ({"history": 100}, "history is 100"),
        ({"limits": {"filters": 5}}, "limits is a value of type dict"),
        ({"limits": 5}, "limits is 5"),
        ({"limits": Limits}, "limits is the class Limits"),
        ({"untyped": "braodcast"}, "untyped is 'braodcast', expected 'refuse' or 'broadcast'"),
        ({"untyped": None}, "untyped is None"),
        ({"untyped": []}, "untyped is"),
        ({"startup_patience_s": "30"}, "startup_patience_s is a value of type str"),
        ({"startup_patience_s": None}, "startup_patience_s is None"),
        ({"startup_patience_s": True}, "startup_patience_s is True"),
        ({"startup_patience_s": -1}, "startup_patience_s is -1"),
        ({"startup_patience_s": float("nan")}, "startup_patience_s is nan"),
        ({"adapt_server": "no"}, "adapt_server is a value of type str"),
        ({"hello": "yes"}, "hello is a value of type str"),
        ({"stamp_sender": None}, "stamp_sender is None"),
        ({"registry": [InMemoryBroker]}, "registry is a value of type list"),
        ({"alowed_origins": ["*"]}, "unknown arguments: alowed_origins"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value)[:50],
)  # fmt: skip
def test_wrong_argument_is_refused_by_name(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"(?s){named}") as caught:
        WebSocketManager(**{"broker_channel": "c", "broker_url": "memory://", **arguments})
    assert " Fix: " in str(caught.value)


def test_filter_of_history_is_checked() -> None:
    with pytest.raises(InvalidFilter, match="a/#/b"):
        WebSocketManager("c", "memory://", history={"a/#/b": History()})


def test_secret_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        WebSocketManager("c", "memory://", verify_token="hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"verify_token": _verify}, {"verify_token": Verifier()}, {"verify_token": Verifier().verify},
        {"authorize": lambda *_: True}, {"authorize": lambda p, a, t, extra=None: True}, {"codec": JSONCodec()},
        {"verify_token": {}.get}, {"history": {}}, {"startup_patience_s": 5}, {"registry": PluginRegistry()},
        {"limits": Limits()}, {"allowed_origins": {"https://a.example"}},
    ],
    ids=str,
)  # fmt: skip
def test_right_argument_is_accepted(arguments: dict[str, Any]) -> None:
    assert WebSocketManager("c", "memory://", **arguments)


def test_every_rule_has_an_argument() -> None:
    check_arguments(VALID)
    assert set(_RULES) == set(VALID)


def test_plain_broker_object_is_accepted() -> None:
    class Mine(BrokerInterface):
        async def connect(self) -> None: ...
        async def disconnect(self) -> None: ...
        async def subscribe(self, channel: str) -> None: ...
        async def unsubscribe(self, channel: str) -> None: ...
        async def publish(self, channel: str, message: Any) -> None: ...
        async def get_message(self, **kwargs: Any) -> None: ...

    assert WebSocketManager("c", broker=Mine())
    assert WebSocketManager("c", broker_class=Mine)
