"""The open connections of a node."""

from __future__ import annotations

from dws_core import Principal
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.registry import ConnectionRegistry
from dws_core.testing import FakeWebSocket


def _connection(conn_id: str) -> Connection:
    return Connection(FakeWebSocket(), conn_id)


async def test_connections_are_found_by_id_in_order() -> None:
    connections = ConnectionRegistry()
    ann, ann_again, bo = _connection("ann"), _connection("ann"), _connection("bo")
    for connection in (ann, ann_again, bo):
        connections.add(connection)
    assert connections.by_id("ann") == (ann, ann_again)
    assert connections.by_id("nobody") == ()
    assert list(connections) == [ann, ann_again, bo]
    assert len(connections) == 3
    assert bo in connections
    assert _connection("bo") not in connections


async def test_removal_keeps_other_connections_with_same_id() -> None:
    connections = ConnectionRegistry()
    first, second = _connection("ann"), _connection("ann")
    connections.add(first)
    connections.add(second)
    assert connections.discard(first)
    assert not connections.discard(first)
    assert connections.by_id("ann") == (second,)
    assert connections.discard(second)
    assert connections.by_id("ann") == ()
    assert len(connections) == 0


async def test_everyone_tuple_is_reused_until_a_change() -> None:
    connections = ConnectionRegistry()
    ann, bo = _connection("ann"), _connection("bo")
    connections.add(ann)
    before = connections.everyone
    assert connections.everyone is before
    connections.add(bo)
    assert connections.everyone == (ann, bo)
    connections.discard(ann)
    assert connections.everyone == (bo,)
    assert before == (ann,)


async def test_renamed_connection_has_only_new_id() -> None:
    connections = ConnectionRegistry()
    ann = _connection("ann")
    connections.add(ann)
    connections.rename(ann, "bo")
    assert ann.id == "bo"
    assert connections.by_id("bo") == (ann,)
    assert connections.by_id("ann") == ()


async def test_rename_of_removed_connection_does_not_add_it() -> None:
    connections = ConnectionRegistry()
    ann = _connection("ann")
    connections.rename(ann, "bo")
    assert ann.id == "bo"
    assert ann not in connections
    assert connections.by_id("bo") == ()


async def test_connections_are_found_by_user() -> None:
    connections = ConnectionRegistry()
    phone = Connection(FakeWebSocket(), "a", principal=Principal(id="ann"))
    laptop = Connection(FakeWebSocket(), "b", principal=Principal(id="ann"))
    for connection in (
        phone,
        laptop,
        _connection("ann"),
        Connection(FakeWebSocket(), "c", principal=Principal(id="bo")),
    ):
        connections.add(connection)
    assert connections.by_user("ann") == (phone, laptop)
    assert connections.by_user("nobody") == ()
