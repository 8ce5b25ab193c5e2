"""The connections of a node as the senders of messages, so that a message is not delivered to its own sender.

A message that excludes its sender is stored with the sender's name. Every node compares it with its connections, also in
a replay. A client that sends a `client_id` keeps its name on all its connections.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from dws_core._node.connection.connection import Connection
from dws_core._node.connection.registry import ConnectionRegistry
from dws_core._wire.envelope import EXCLUDE, attributes_of
from dws_core._wire.keys import digest

_CONN_ID: Final = "conn_id:"


def name_of_id(conn_id: str) -> str:
    """Return the name of all connections with an id."""
    return _CONN_ID + conn_id


class Senders:
    """Names the connections of a node, and finds them by name.

    Args:
        connections: The open connections of the node.
    """

    def __init__(self, connections: ConnectionRegistry) -> None:
        self._connections = connections
        self._client_ids: WeakKeyDictionary[Connection, str | None] = WeakKeyDictionary()
        self._names: WeakKeyDictionary[Connection, str] = WeakKeyDictionary()  # of connections without client id
        self._by_name: WeakValueDictionary[str, Connection] = WeakValueDictionary()  # the same
        self._clients: dict[str, tuple[Connection, ...]] | None = None  # most channels never ask

    def has_connected(self, connection: Connection) -> bool:
        """Return whether a connection has sent `connect`."""
        return connection in self._client_ids

    def on_connect(self, connection: Connection, client_id: str | None) -> None:
        """Take the client id of a connection's `connect`."""
        self._client_ids[connection] = client_id
        if self._clients is not None:
            self._add(self._clients, connection, client_id)

    def on_connect_failed(self, connection: Connection) -> None:
        """Forget a `connect` that was refused. The connection may send another one."""
        self.on_closed(connection)
        self._client_ids.pop(connection, None)

    def on_closed(self, connection: Connection) -> None:
        """Forget a closed connection as a receiver. It keeps its name."""
        if self._clients is not None and (client_id := self.client_id(connection)) is not None:
            name = _client_name(client_id)
            left = tuple(one for one in self._clients.get(name, ()) if one is not connection)
            if left:
                self._clients[name] = left
            else:
                self._clients.pop(name, None)

    def client_id(self, connection: Connection) -> str | None:
        """Return the random client id that a connection has sent with `connect`, or None."""
        return self._client_ids.get(connection)

    def name(self, connection: Connection) -> str:
        """Return the name of a connection: that of its client, or else one of its own."""
        if (client_id := self.client_id(connection)) is not None:
            return _client_name(client_id)
        if (name := self._names.get(connection)) is None:
            name = self._names[connection] = f"connection:{secrets.token_urlsafe(12)}"
            self._by_name[name] = connection
        return name

    def excluded(self, payload: bytes) -> Collection[Connection]:
        """Return the connections of this node that do not receive a message, from its envelope."""
        name = attributes_of(payload).get(EXCLUDE)
        if name is None:
            return ()
        if name.startswith(_CONN_ID):
            return self._connections.by_id(name.removeprefix(_CONN_ID))
        own = self._by_name.get(name)
        return self._find_clients().get(name, ()) if own is None else (own,)

    def _find_clients(self) -> dict[str, tuple[Connection, ...]]:
        """Return the connections by the name of their client. The index is built when it is first needed."""
        if self._clients is None:
            self._clients = {}
            for connection in self._connections:
                self._add(self._clients, connection, self.client_id(connection))
        return self._clients

    @staticmethod
    def _add(clients: dict[str, tuple[Connection, ...]], connection: Connection, client_id: str | None) -> None:
        if client_id is not None:
            name = _client_name(client_id)
            clients[name] = (*clients.get(name, ()), connection)


def _client_name(client_id: str) -> str:
    """Return the name of a client. The client id is secret, so the name contains only its digest."""
    return f"client:{digest(client_id)}"
