"""The filters of one connection as a set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSet
from typing import Any, Generic, TypeVar

from dws_core._topics.router import Router

Owner = TypeVar("Owner")


class FilterSet(MutableSet[str], Generic[Owner]):
    """A live view of the filters that a router has for one owner."""

    __slots__ = ("_owner", "_router")

    def __init__(self, router: Router[Owner], owner: Owner) -> None:
        self._router = router
        self._owner = owner

    def __contains__(self, value: object) -> bool:
        return value in self._router.filters(self._owner)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._router.filters(self._owner)))

    def __len__(self) -> int:
        return len(self._router.filters(self._owner))

    def __repr__(self) -> str:
        return f"FilterSet({set(self)!r})"

    def add(self, value: str) -> None:
        """Subscribe to a filter.

        Raises:
            InvalidFilter: The filter breaks a rule of MQTT 5.0 §4.7.
        """
        self._router.subscribe(self._owner, value)

    def discard(self, value: str) -> None:
        """Unsubscribe from a filter. A filter that is not in the set is no error."""
        self._router.unsubscribe(self._owner, value)

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:
        return set(it)
