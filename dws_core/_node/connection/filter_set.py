"""The filters of one connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSet
from typing import TYPE_CHECKING, Any

from dws_core._topics.router import Router

if TYPE_CHECKING:
    from dws_core._node.connection.connection import Connection


class FilterSet(MutableSet[str]):
    """The filters of one connection: a live set."""

    __slots__ = ("_connection", "_router")

    def __init__(self, router: Router[Any], connection: Connection) -> None:
        self._router = router
        self._connection = connection

    def __contains__(self, value: object) -> bool:
        return value in self._router.filters(self._connection)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._router.filters(self._connection)))

    def __len__(self) -> int:
        return len(self._router.filters(self._connection))

    def __repr__(self) -> str:
        return f"FilterSet({set(self)!r})"

    def add(self, value: str) -> None:
        """Subscribe to a filter.

        Raises:
            InvalidFilter: It breaks a rule of MQTT 5.0 §4.7.
        """
        self._router.subscribe(self._connection, value)

    def discard(self, value: str) -> None:
        """Remove a filter; one that is not there is no error."""
        self._router.unsubscribe(self._connection, value)

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:
        return set(it)
