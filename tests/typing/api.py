"""The public API as type checkers see it. This file is checked by mypy and never run."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, assert_type

from fastapi import FastAPI, WebSocket

import dws_core
import dws_core.testing
from dws_core import (
    BrokerInterface,
    BrokerURL,
    CloseCode,
    Connection,
    JWTAuthenticator,
    Limits,
    Message,
    PendingPublish,
    Permissions,
    Principal,
    Receipt,
    WebSocketManager,
    WebSocketOAuth2PasswordBearer,
    WebSocketProxy,
    ahandle,
    create_broker,
    filter_covers,
    handle,
    is_valid_broker,
    matches,
)
from dws_core.plugin import BrokerCapabilities, BrokerSpec, LogBroker, PluginRegistry


async def application(websocket: WebSocket) -> None:
    """Use the API of applications."""
    manager = WebSocketManager("chat", broker_url="memory://", limits=Limits(filters=None), allowed_origins=["*"])
    FastAPI(lifespan=manager.lifespan)
    async with manager.connect(websocket, "id", topic="t") as connection:
        assert_type(connection, Connection)
        assert_type(connection.principal, Principal | None)
        assert_type(connection.close_code, int | None)
        async for message in connection:
            assert_type(message, Message)
            await manager.receive(connection, message)
        assert_type(await connection.send_json({"a": 1}), bool)
        connection.topics.add("t")
    assert_type(manager.publish("t", 1, key="k"), PendingPublish)
    assert_type(manager.publish("t", 1).result(timeout_s=1), list[Receipt])
    assert_type(await manager.broadcast({"x": 1}), list[Receipt])
    assert_type(await manager.send_to(["a", "b"], 1), list[Receipt])
    assert_type(manager.active_connections, list[Connection])
    await manager.close_connection(connection, CloseCode.NORMAL)
    await WebSocketProxy(websocket, "ws://h/ws")()
    assert_type(await WebSocketOAuth2PasswordBearer("/token")(websocket), str | None)
    assert_type(matches("a", {"a"}), bool)
    assert_type(filter_covers("a/#", "a/+"), bool)
    assert_type(create_broker("memory://"), BrokerInterface | LogBroker)


@handle(ValueError, str)
def handled(number: int) -> int:
    """Be decorated with `handle`."""
    return number


async def on_error(error: ValueError) -> None:
    """Handle the error."""


@ahandle(ValueError, on_error)
async def ahandled(number: int) -> int:
    """Be decorated with `ahandle`."""
    return number


def decorated() -> None:
    """Keep argument types."""
    assert_type(handled(1), int | str)
    assert_type(ahandled(1), Awaitable[Any])


def plugin(cls: type[LogBroker]) -> BrokerSpec:
    """Create a record."""
    cls.from_url(BrokerURL.parse("x://"))
    return BrokerSpec(
        schemes=("x",), load=lambda: cls, capabilities=BrokerCapabilities(cross_process=True), summary="X."
    )


def record(url: BrokerURL) -> BrokerSpec:
    """Find the class for a URL."""
    assert_type(PluginRegistry().broker_class(url), type[BrokerInterface] | type[LogBroker])
    return PluginRegistry().broker_spec(url.scheme, where=url)


class Loud(dws_core.RedisBroker):
    """Override a method of the original library, which the node does not call. It raises a TypeError when it runs."""

    async def publish(self, channel: str, message: Any) -> None:  # type: ignore[override]
        """Publish."""


def names_of_the_original() -> None:
    """Check that names which are looked up at run time are typed, and that no other name is."""
    broker = dws_core.RedisBroker("redis://localhost")
    WebSocketManager("chat", broker=broker, codec="json")
    WebSocketManager("chat", broker_url="memory://chat", broker_class=dws_core.InMemoryBroker)
    logs: list[LogBroker] = [broker, dws_core.InMemoryBroker(), dws_core.InMemoryBroker("name")]
    assert_type(logs[0].capabilities.recovery, bool)
    dws_core.InMemoryBroker().connect()  # type: ignore[attr-defined]  # a LogBroker has no such method
    with_plain: list[BrokerInterface] = [broker]  # type: ignore[list-item]  # it is none
    with_plain.clear()
    assert_type(is_valid_broker(1), bool)
    dws_core.Nonsense  # type: ignore[attr-defined]  # noqa: B018 -- the ignore is unused, and fails, if anything goes
    dws_core.testing.Nonsense  # type: ignore[attr-defined]  # noqa: B018 -- as above


async def users() -> None:
    """Use permissions, tokens, and the methods for users."""
    rules = Permissions({"chat/+": {"subscribe", "send"}, "user/{principal.id}/#": {"subscribe"}})
    tokens = JWTAuthenticator(
        key="secret", algorithms=["HS256"], principal_of=lambda claims: Principal(id=claims["sub"])
    )
    assert_type(await tokens.authenticate_token("token"), Principal)
    manager = WebSocketManager("chat", broker_url="memory://", authenticator=tokens, authorize=rules, hello=True)
    assert_type(manager.send_to_user("ann", 1), PendingPublish)
    assert_type(await manager.disconnect(user="ann", code=CloseCode.DISCONNECTED), list[Receipt])
    assert_type(manager.unsubscribe(user="ann", topic="chat/1"), PendingPublish)
