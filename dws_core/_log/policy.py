"""The history of each topic, which the application chooses by filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from dws_core._log.records import History
from dws_core._wire.node_topics import COMMANDS

COMMANDS_HISTORY: Final = History(size=1_000, ttl_s=3_600.0)
"""History of the commands to all nodes. A node that is cut off for longer may miss commands."""

_MAX_CACHED: Final = 65_536
"""Maximum number of topics in the cache. When it is full, the cache is cleared."""


class HistoryPolicy:
    """Chooses the history of a topic: the first filter that matches decides, in the given order.

    Args:
        rules: A `History` for each filter, with special filters before general ones.
        matches: Returns whether a topic matches a filter.
        default: History of topics that no filter matches. If None, `History()`.
    """

    def __init__(
        self, rules: Mapping[str, History], matches: Callable[[str, str], bool], default: History | None = None
    ) -> None:
        self._rules = tuple(rules.items())
        self._matches = matches
        self._default = default or History()
        self._cache: dict[str, History] = {}

    def of(self, topic: str) -> History:
        """Return the history of a topic."""
        if topic == COMMANDS:
            return COMMANDS_HISTORY
        if not self._rules:
            return self._default
        if (found := self._cache.get(topic)) is None:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            found = self._cache[topic] = self._look_up(topic)
        return found

    def _look_up(self, topic: str) -> History:
        return next((history for filter_, history in self._rules if self._matches(topic, filter_)), self._default)
