"""The filters of one connection as a set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSet
from collections.abc import Set as AbstractSet
from typing import Any, Generic, Protocol, TypeVar

from dws_core._topics.router import Router

Owner = TypeVar("Owner")
Owner_contra = TypeVar("Owner_contra", contravariant=True)


class FiltersInReplay(Protocol[Owner_contra]):
    """Filters whose past is being sent, so that they are not in the router yet."""

    def filters(self, owner: Owner_contra, /) -> AbstractSet[str]:
        """Return these filters of an owner."""
        ...

    def discard(self, owner: Owner_contra, filter_: str, /) -> None:
        """End the replays of a filter."""
        ...


class FilterSet(MutableSet[str], Generic[Owner]):
    """A live view of the filters of one owner: those of a router, and those whose past is being sent."""

    __slots__ = ("_owner", "_replays", "_router")

    def __init__(self, router: Router[Owner], owner: Owner, replays: FiltersInReplay[Owner] | None = None) -> None:
        self._router = router
        self._owner = owner
        self._replays = replays

    def __contains__(self, value: object) -> bool:
        return value in self._filters()

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._filters()))

    def __len__(self) -> int:
        return len(self._filters())

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
        if self._replays is not None:
            self._replays.discard(self._owner, value)

    def _filters(self) -> AbstractSet[str]:
        live = self._router.filters(self._owner)
        waiting = self._replays.filters(self._owner) if self._replays is not None else None
        return live | waiting if waiting else live

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:
        return set(it)
