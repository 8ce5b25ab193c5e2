"""How much of a topic is kept: the application's choice by filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from dws_core._log.records import History

_MAX_KNOWN: Final = 65_536
"""Topics whose answer is remembered; then all are forgotten."""


class HistoryPolicy:
    """Chooses a topic's history: that of the first filter which matches, in the order they are given.

    Args:
        rules: A `History` for each filter, special filters before general ones.
        matches: Says whether a topic matches a filter.
        default: Of topics that no filter matches.
    """

    def __init__(
        self, rules: Mapping[str, History], matches: Callable[[str, str], bool], default: History | None = None
    ) -> None:
        self._rules = tuple(rules.items())
        self._matches = matches
        self._default = default or History()
        self._known: dict[str, History] = {}

    def of(self, topic: str) -> History:
        """Return how much of a topic is kept."""
        if not self._rules:
            return self._default
        if (found := self._known.get(topic)) is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            found = self._known[topic] = self._look_up(topic)
        return found

    def _look_up(self, topic: str) -> History:
        return next((history for filter_, history in self._rules if self._matches(topic, filter_)), self._default)
