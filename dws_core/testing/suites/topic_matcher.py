"""The conformance suite for topic languages, with examples of MQTT. Override the fixtures for another language."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import pytest

from dws_core.plugin import InvalidFilter, InvalidTopic, TopicMatcher
from dws_core.testing.suites.conformance import Conformance
from dws_core.testing.suites.selection import needs

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


class TopicMatcherConformance(Conformance):
    """Tests that every topic language must pass. Requires one fixture, `matcher`.

    The other fixtures describe MQTT filters (MQTT 5.0 §4.7). Override them for a plugin with another language.
    """

    @pytest.fixture
    def matcher(self) -> TopicMatcher:
        """The matcher under test."""
        raise NotImplementedError("the suite needs a fixture 'matcher'. Fix: define it in your subclass")

    @pytest.fixture
    def examples(self) -> Sequence[tuple[str, str, bool]]:
        """The examples of the language's specification: filter, topic, and whether the topic matches."""
        return _EXAMPLES

    @pytest.fixture
    def topics(self) -> Sequence[str]:
        """Valid topics, many of which match some of `filters`."""
        return [*_words("a", "b", "", "$x"), *(topic for _, topic, _ in _EXAMPLES)]

    @pytest.fixture
    def filters(self) -> Sequence[str]:
        """Valid filters."""
        plain = _words("a", "b", "", "+", "$x")
        return [*plain, *(f"{filter_}/#" for filter_ in plain), "#", *(filter_ for filter_, _, _ in _EXAMPLES)]

    @pytest.fixture
    def invalid_filters(self) -> Sequence[str]:
        """Filters that the language does not allow."""
        return ["", "a\0b", "a/#/b", "#/a", "a#", "a/b#", "a+", "+a/b", "a/+b/c", "##", "++", "\ud800", "x" * 100_000]

    @pytest.fixture
    def invalid_topics(self) -> Sequence[str]:
        """Topics that the language does not allow."""
        return ["", "a\0b", "a/#", "+", "a/+/b", "a+b", "\udfff/a", "x" * 100_000]

    @pytest.fixture
    def reference(self) -> Callable[[str, str], bool] | None:
        """A naive `reference(topic, filter)` that returns whether a topic matches. If None, its test is skipped."""
        return _naive

    def test_examples_of_specification_match(
        self, matcher: TopicMatcher, examples: Sequence[tuple[str, str, bool]]
    ) -> None:
        for filter_, topic, expected in examples:
            assert matcher.check_filter(filter_) == filter_
            assert matcher.check_topic(topic) == topic
            assert matcher.matches(topic, filter_) is expected, (filter_, topic)

    @needs(fixture="reference")
    def test_matcher_agrees_with_naive_reference(
        self,
        matcher: TopicMatcher,
        topics: Sequence[str],
        filters: Sequence[str],
        reference: Callable[[str, str], bool],
    ) -> None:
        for filter_, topic in _some_pairs(filters, topics):
            assert matcher.matches(topic, filter_) is reference(topic, filter_), (filter_, topic)

    def test_invalid_filter_is_rejected_with_position(
        self, matcher: TopicMatcher, invalid_filters: Sequence[str]
    ) -> None:
        for filter_ in invalid_filters:
            with pytest.raises(InvalidFilter) as caught:
                matcher.check_filter(filter_)
            _check_error(caught.value, filter_)

    def test_invalid_topic_is_rejected_with_position(
        self, matcher: TopicMatcher, invalid_topics: Sequence[str]
    ) -> None:
        for topic in invalid_topics:
            with pytest.raises(InvalidTopic) as caught:
                matcher.check_topic(topic)
            _check_error(caught.value, topic)

    def test_index_finds_matching_filters(
        self, matcher: TopicMatcher, topics: Sequence[str], filters: Sequence[str]
    ) -> None:
        index = matcher.index()
        for filter_ in dict.fromkeys(filters):
            assert index.add(filter_, filter_)
        for topic in topics:
            assert index.lookup(topic) == {filter_ for filter_ in filters if matcher.matches(topic, filter_)}, topic

    def test_index_counts_pairs_and_returns_changes(self, matcher: TopicMatcher, filters: Sequence[str]) -> None:
        """`add` and `discard` return whether the index changed."""
        index = matcher.index()
        one, two = list(dict.fromkeys(filters))[:2]
        assert [index.add(one, "x"), index.add(one, "x"), index.add(one, "y"), index.add(two, "x")] == [
            True,
            False,
            True,
            True,
        ]
        assert len(index) == 3
        assert [index.discard(one, "x"), index.discard(one, "x"), index.discard(two, "nobody")] == [True, False, False]
        assert len(index) == 2

    def test_receiver_is_found_once_for_several_filters(
        self, matcher: TopicMatcher, examples: Sequence[tuple[str, str, bool]]
    ) -> None:
        index = matcher.index()
        topic = next(topic for _, topic, expected in examples if expected)
        for filter_ in {topic, *(f for f, t, expected in examples if expected and t == topic)}:
            index.add(filter_, "x")
        assert list(index.lookup(topic)) == ["x"]

    def test_index_is_correct_after_random_changes(
        self, matcher: TopicMatcher, topics: Sequence[str], filters: Sequence[str]
    ) -> None:
        rng = random.Random(2024)  # noqa: S311 -- the same changes in every run
        index, model = matcher.index(), set[tuple[str, int]]()
        some = rng.sample(list(dict.fromkeys(filters)), min(40, len(set(filters))))
        for _ in range(600):
            pair = (rng.choice(some), rng.randrange(5))
            if rng.random() < 0.5:
                assert index.add(*pair) is (pair not in model)
                model.add(pair)
            else:
                assert index.discard(*pair) is (pair in model)
                model.discard(pair)
            topic = rng.choice(topics)
            assert index.lookup(topic) == {receiver for f, receiver in model if matcher.matches(topic, f)}
            assert len(index) == len(model)
        for pair in model:
            index.discard(*pair)
        assert len(index) == 0
        assert not any(index.lookup(topic) for topic in topics)

    def test_indexes_are_independent(self, matcher: TopicMatcher, filters: Sequence[str]) -> None:
        one, two = matcher.index(), matcher.index()
        one.add(filters[0], "x")
        assert (len(one), len(two)) == (1, 0)


def _words(*levels: str) -> list[str]:
    """Return all topics of one to three of these levels, without the empty text."""
    return ["/".join(word) for n in (1, 2, 3) for word in itertools.product(levels, repeat=n) if word != ("",)]


def _some_pairs(filters: Sequence[str], topics: Sequence[str]) -> list[tuple[str, str]]:
    pairs = list(itertools.product(dict.fromkeys(filters), dict.fromkeys(topics)))
    return random.Random(2024).sample(pairs, min(len(pairs), 5000))  # noqa: S311 -- the same pairs in every run


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


def _check_error(error: InvalidTopic, text: str) -> None:
    assert error.text == text
    assert 0 <= error.position <= len(text)
    assert error.reason
    assert len(str(error)) < 1000, "a long text is shortened"
