"""The open connections of a node, by id."""

from __future__ import annotations

from collections.abc import Iterator

from dws_core._node.connection.connection import Connection


class ConnectionRegistry:
    """All open connections. Any number may share an id."""

    def __init__(self) -> None:
        self._by_id: dict[str, tuple[Connection, ...]] = {}
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
        self._by_id[connection.id] = (*self._by_id.get(connection.id, ()), connection)

    def discard(self, connection: Connection) -> bool:
        """Remove a connection. Return False if it was not registered."""
        if connection not in self._all:
            return False
        del self._all[connection]
        self._everyone = None
        left = tuple(c for c in self._by_id[connection.id] if c is not connection)
        if left:
            self._by_id[connection.id] = left
        else:
            del self._by_id[connection.id]
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
        """Return the connections of an authenticated user. The cost grows with the number of all connections."""
        return tuple(c for c in self._all if c.principal is not None and c.principal.id == user)
