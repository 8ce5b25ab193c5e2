"""The open connections of a node."""

from __future__ import annotations

from dws_core import Principal
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.registry import ConnectionRegistry
from dws_core.testing import FakeWebSocket


def _connection(conn_id: str, user: str | None = None) -> Connection:
    return Connection(FakeWebSocket(), conn_id, principal=None if user is None else Principal(id=user))


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
    anonymous, same, other = _connection("ann"), _connection("ann", "ann"), _connection("x", "ann")
    stranger = _connection("ann", "bo")
    for connection in (anonymous, same, other, stranger):
        connections.add(connection)
    assert connections.by_user("ann") == (same, other)
    assert connections.by_user("bo") == (stranger,)
    assert connections.by_user("x") == ()
    connections.rename(same, "y")
    connections.rename(other, "ann")
    assert set(connections.by_user("ann")) == {same, other}
    for connection in (same, other, stranger):
        assert connections.discard(connection)
    assert connections.by_user("ann") == connections.by_user("bo") == ()
    assert connections._by_user == {}


async def test_user_with_default_id_needs_no_second_entry() -> None:
    connections = ConnectionRegistry()
    connections.add(_connection("ann", "ann"))
    assert connections._by_user == {}
    assert connections.by_user("ann") is connections.by_id("ann")
