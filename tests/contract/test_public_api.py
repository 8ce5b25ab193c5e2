"""`__all__` of each public module is sorted, complete and documented."""

from __future__ import annotations

import importlib
import inspect

import pytest

import dws_core

DOORS = ["dws_core", "dws_core.client", "dws_core.plugin", "dws_core.server", "dws_core.testing"]

BUILT_ON = {"dws_core.server": {"CloseCode", "ConfigurationError", "FrameListener", "TokenBucket"}}
"""Names that a public module with code imports only for its own use."""


@pytest.mark.parametrize("door", DOORS)
def test_public_names_are_sorted_and_exist(door: str) -> None:
    module = importlib.import_module(door)
    assert list(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("door", DOORS)
def test_public_names_are_complete(door: str) -> None:
    module = importlib.import_module(door)
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and str(getattr(value, "__module__", "")).startswith("dws_")
        and name not in BUILT_ON.get(door, set())
    }
    assert public <= set(module.__all__), public - set(module.__all__)


@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_is_documented(door: str) -> None:
    module = importlib.import_module(door)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), f"{door}.{name} has no docstring"


ATTRIBUTES = {
    "WebSocketManager": [
        "active_connections",
        "broadcast",
        "broker",
        "broker_channel",
        "close_connection",
        "connect",
        "disconnect",
        "health",
        "history",
        "lifespan",
        "limits",
        "new_connection",
        "publish",
        "receive",
        "remove_connection",
        "request",
        "send",
        "send_by_conn_id",
        "send_msg",
        "send_to",
        "send_to_user",
        "set_conn_id",
        "shutdown",
        "startup",
        "stats",
        "unsubscribe",
    ],
    "Connection": [
        "accept",
        "close",
        "close_code",
        "closed",
        "codec",
        "disconnect",
        "id",
        "iter_json",
        "principal",
        "receive_json",
        "send_json",
        "state",
        "takes_ready_frames",
        "topics",
        "websocket",
    ],
    "Message": ["conn_id", "data", "echo", "from_client_message", "id", "key", "to", "topic", "typ", "type"],
}
"""Every public attribute of the classes that applications use most."""


def _attributes() -> dict[str, list[str]]:
    manager = dws_core.WebSocketManager("c", broker_url="memory://")
    found = {
        "WebSocketManager": {*dir(manager)},
        "Connection": {*dir(dws_core.Connection)},
        "Message": {*dir(dws_core.Message)},
    }
    return {name: sorted(n for n in names if not n.startswith("_")) for name, names in found.items()}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_public_attributes_are_listed(name: str) -> None:
    assert _attributes()[name] == ATTRIBUTES[name]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_public_methods_are_documented(name: str) -> None:
    cls = getattr(dws_core, name)
    for attribute in ATTRIBUTES[name]:
        value = inspect.getattr_static(cls, attribute, None)
        if inspect.isfunction(value) or isinstance(value, property):
            assert (value.__doc__ or "").strip(), f"{name}.{attribute} has no docstring"
