"""The conformance suite for topic matchers whose language is MQTT."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest

from dws_core.testing.suites.topic_matcher import TopicMatcherConformance

_EXAMPLES = [  # filter, topic, whether it matches: MQTT 5.0 §4.7.1 and §4.7.2, and edge cases
    ("sport/tennis/player1/#", "sport/tennis/player1", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
    ("sport/tennis/player1/#", "sport/tennis/player10", False),
    ("sport/#", "sport", True),
    ("#", "sport/tennis", True),
    ("#", "/", True),
    ("sport/tennis/+", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("#", "$SYS/monitor", False),
    ("+/monitor/clients", "$SYS/monitor/clients", False),
    ("$SYS/#", "$SYS/monitor", True),
    ("$SYS/monitor/+", "$SYS/monitor/clients", True),
    ("a/+/#", "a/b", True),
    ("a/+/#", "a", False),
    ("a//b", "a//b", True),
    ("a/+/b", "a//b", True),
    ("Chat", "chat", False),
]


class MQTTMatcherConformance(TopicMatcherConformance):
    """Tests that a topic matcher for MQTT filters must pass (MQTT 5.0 §4.7). Requires one fixture, `matcher`."""

    @pytest.fixture
    def examples(self) -> Sequence[tuple[str, str, bool]]:
        """The examples of the specification, and edge cases."""
        return _EXAMPLES

    @pytest.fixture
    def topics(self) -> Sequence[str]:
        """Topics of one to three levels, some of them empty or reserved."""
        return [*_words("a", "b", "", "$x"), *(topic for _, topic, _ in _EXAMPLES)]

    @pytest.fixture
    def filters(self) -> Sequence[str]:
        """Filters of one to three levels."""
        plain = _words("a", "b", "", "+", "$x")
        return [*plain, *(f"{filter_}/#" for filter_ in plain), "#", *(filter_ for filter_, _, _ in _EXAMPLES)]

    @pytest.fixture
    def invalid_filters(self) -> Sequence[str]:
        """Filters with misplaced wildcards, and filters that are not MQTT strings."""
        return ["", "a\0b", "a/#/b", "#/a", "a#", "a/b#", "a+", "+a/b", "a/+b/c", "##", "++", "\ud800", "x" * 100_000]

    @pytest.fixture
    def invalid_topics(self) -> Sequence[str]:
        """Topics with wildcards, and topics that are not MQTT strings."""
        return ["", "a\0b", "a/#", "+", "a/+/b", "a+b", "\udfff/a", "x" * 100_000]

    @pytest.fixture
    def reference(self) -> Callable[[str, str], bool] | None:
        """A comparison level by level."""
        return _naive


def _words(*levels: str) -> list[str]:
    """Return all topics of one to three of these levels, without the empty text."""
    return ["/".join(word) for n in (1, 2, 3) for word in itertools.product(levels, repeat=n) if word != ("",)]


def _naive(topic: str, filter_: str) -> bool:
    """Compare a topic and a filter level by level (MQTT 5.0 §4.7)."""
    if topic.startswith("$") and filter_[0] in "+#":
        return False

    def follow(levels: list[str], wanted: list[str]) -> bool:
        if wanted == ["#"]:
            return True
        if not levels or not wanted:
            return levels == wanted
        return wanted[0] in ("+", levels[0]) and follow(levels[1:], wanted[1:])

    return follow(topic.split("/"), filter_.split("/"))
