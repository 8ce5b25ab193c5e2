"""Numbers of connections by key, with a maximum for each key."""

from __future__ import annotations


class Places:
    """Counts the connections of each key, for example of each user. Without a limit it counts nothing.

    Args:
        limit: Maximum number of connections of one key. If None, it is not limited.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._taken: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of keys that have connections."""
        return len(self._taken)

    def take(self, key: str | None) -> bool:
        """Count one more connection. Return False, and count nothing, if the limit is reached. None has no limit."""
        if self._limit is None or key is None:
            return True
        taken = self._taken.get(key, 0)
        if taken >= self._limit:
            return False
        self._taken[key] = taken + 1
        return True

    def give_back(self, key: str | None) -> None:
        """Count one connection less, after `take` has returned True."""
        if self._limit is None or key is None:
            return
        left = self._taken[key] - 1
        if left:
            self._taken[key] = left
        else:
            del self._taken[key]
