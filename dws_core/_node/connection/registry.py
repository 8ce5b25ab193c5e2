"""The open connections of a node, by id."""

from __future__ import annotations

from collections.abc import Iterator

from dws_core._node.connection.connection import Connection


class ConnectionRegistry:
    """All open connections. Any number may share an id, or a user."""

    def __init__(self) -> None:
        self._by_id: dict[str, tuple[Connection, ...]] = {}
        self._by_user: dict[str, tuple[Connection, ...]] = {}  # those with another id than that of their user
        self._all: dict[Connection, None] = {}
        self._everyone: tuple[Connection, ...] | None = None

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self.everyone)

    @property
    def everyone(self) -> tuple[Connection, ...]:
        """All connections. The same tuple until a connection is added or removed."""
        if self._everyone is None:
            self._everyone = tuple(self._all)
        return self._everyone

    def __contains__(self, connection: object) -> bool:
        return connection in self._all

    def add(self, connection: Connection) -> None:
        """Add a connection under its id."""
        self._all[connection] = None
        self._everyone = None
        _add(self._by_id, connection.id, connection)
        if (user := _user_of(connection)) is not None and user != connection.id:
            _add(self._by_user, user, connection)

    def discard(self, connection: Connection) -> bool:
        """Remove a connection. Return False if it was not registered."""
        if connection not in self._all:
            return False
        del self._all[connection]
        self._everyone = None
        _discard(self._by_id, connection.id, connection)
        if (user := _user_of(connection)) is not None and user != connection.id:
            _discard(self._by_user, user, connection)
        return True

    def rename(self, connection: Connection, conn_id: str) -> None:
        """Change the id of a connection."""
        registered = self.discard(connection)
        connection.id = conn_id
        if registered:
            self.add(connection)

    def by_id(self, conn_id: str) -> tuple[Connection, ...]:
        """Return the connections with an id, usually one or none."""
        return self._by_id.get(conn_id, ())

    def by_user(self, user: str) -> tuple[Connection, ...]:
        """Return the connections of a user, usually one or none."""
        same_id = self._by_id.get(user, ())
        own = tuple(connection for connection in same_id if _user_of(connection) == user)
        return (same_id if len(own) == len(same_id) else own) + self._by_user.get(user, ())


def _user_of(connection: Connection) -> str | None:
    return None if connection.principal is None else connection.principal.id


def _add(index: dict[str, tuple[Connection, ...]], key: str, connection: Connection) -> None:
    index[key] = (*index.get(key, ()), connection)


def _discard(index: dict[str, tuple[Connection, ...]], key: str, connection: Connection) -> None:
    left = tuple(other for other in index[key] if other is not connection)
    if left:
        index[key] = left
    else:
        del index[key]
