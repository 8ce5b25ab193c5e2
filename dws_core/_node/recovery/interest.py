"""The topics that connections want: their filters, and the node topics that every connection receives."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dws_core._log.partition import partition_of
from dws_core._log.records import Layout, WantedTopics
from dws_core._log.recovery import wanted_topics
from dws_core._node.connection.connection import Connection
from dws_core._topics.interface import TopicMatcher
from dws_core._topics.router import Router
from dws_core._topics.wanted import WantedMatch
from dws_core._wire.node_topics import own_topics


class Interest:
    """Derives wanted topics and partitions from the router and the connection's id.

    Args:
        router: The filters of all connections.
        matcher: The topic language.
        layout: Layout of the channel.
    """

    def __init__(self, router: Router[Connection], matcher: TopicMatcher, layout: Layout) -> None:
        self._router = router
        self._matcher = matcher
        self._layout = layout

    def wanted(self, connection: Connection, filters: Collection[str]) -> dict[int, WantedTopics]:
        """Return the wanted topics of a connection with these filters, by partition. Node topics are included."""
        wild = [filter_ for filter_ in filters if not self._matcher.is_exact(filter_)]
        exact = {*_own_topics(connection), *filters}.difference(wild)
        match = WantedMatch(exact, wild, self._matcher.index) if wild else None
        return wanted_topics(exact, match, self._layout)

    def wanted_by(self, filter_: str) -> dict[int, WantedTopics]:
        """Return the wanted topics of one filter, by partition."""
        if self._matcher.is_exact(filter_):
            return wanted_topics((filter_,), None, self._layout)
        return wanted_topics((), WantedMatch((), (filter_,), self._matcher.index), self._layout)

    def partitions(self, connection: Connection) -> frozenset[int]:
        """Return the partitions that a connection needs. Those of node topics are included."""
        return self.partitions_of((*self._router.filters(connection), *_own_topics(connection)))

    def partitions_of(self, filters: Iterable[str]) -> frozenset[int]:
        """Return the partitions whose topics may match one of the filters."""
        found: set[int] = set()
        for filter_ in filters:
            if not self._matcher.is_exact(filter_):
                return frozenset(range(self._layout.partitions))
            found.add(partition_of(filter_, self._layout))
            if len(found) == self._layout.partitions:
                break
        return frozenset(found)

    def filters_in(self, connection: Connection, partition: int) -> list[str]:
        """Return the filters of a connection that may match topics of a partition, sorted."""
        filters = self._router.filters(connection)
        return sorted(filter_ for filter_ in filters if partition in self.partitions_of((filter_,)))


def _own_topics(connection: Connection) -> tuple[str, ...]:
    return own_topics(connection.id, None if connection.principal is None else connection.principal.id)
