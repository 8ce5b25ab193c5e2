"""The conformance suite for topic languages. `mqtt_matcher` has the examples of MQTT."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from dws_core.plugin import InvalidFilter, InvalidTopic, TopicMatcher
from dws_core.testing.suites.conformance import Conformance
from dws_core.testing.suites.selection import needs

_FIX: Final = "Fix: correct the matcher, or the fixture `{}` if your language differs"


class TopicMatcherConformance(Conformance):
    """Tests that every topic language must pass.

    Requires the fixtures `matcher`, `examples`, `invalid_filters` and `invalid_topics`. Optional are `topics`,
    `filters` and `reference`. For MQTT filters, use `MQTTMatcherConformance`, which requires only `matcher`.
    """

    @pytest.fixture
    def matcher(self) -> TopicMatcher:
        """The matcher under test."""
        raise NotImplementedError(_missing("matcher"))

    @pytest.fixture
    def examples(self) -> Sequence[tuple[str, str, bool]]:
        """The examples of the language's specification: filter, topic, and whether the topic matches."""
        raise NotImplementedError(_missing("examples"))

    @pytest.fixture
    def topics(self, examples: Sequence[tuple[str, str, bool]]) -> Sequence[str]:
        """Valid topics, many of which match some of `filters`. By default, those of `examples`."""
        return [topic for _, topic, _ in examples]

    @pytest.fixture
    def filters(self, examples: Sequence[tuple[str, str, bool]]) -> Sequence[str]:
        """Valid filters, at least two. By default, those of `examples`."""
        return [filter_ for filter_, _, _ in examples]

    @pytest.fixture
    def invalid_filters(self) -> Sequence[str]:
        """Filters that the language does not allow."""
        raise NotImplementedError(_missing("invalid_filters"))

    @pytest.fixture
    def invalid_topics(self) -> Sequence[str]:
        """Topics that the language does not allow."""
        raise NotImplementedError(_missing("invalid_topics"))

    @pytest.fixture
    def reference(self) -> Callable[[str, str], bool] | None:
        """A naive `reference(topic, filter)` that returns whether a topic matches. If None, its test is left out."""
        return None

    def test_examples_of_specification_match(
        self, matcher: TopicMatcher, examples: Sequence[tuple[str, str, bool]]
    ) -> None:
        for filter_, topic, expected in examples:
            assert matcher.check_filter(filter_) == filter_
            assert matcher.check_topic(topic) == topic
            _check_match(matcher, filter_, topic, expected, "examples")

    @needs(fixture="reference")
    def test_matcher_agrees_with_naive_reference(
        self,
        matcher: TopicMatcher,
        topics: Sequence[str],
        filters: Sequence[str],
        reference: Callable[[str, str], bool],
    ) -> None:
        for filter_, topic in _some_pairs(filters, topics):
            _check_match(matcher, filter_, topic, reference(topic, filter_), "reference")

    def test_invalid_filter_is_rejected_with_position(
        self, matcher: TopicMatcher, invalid_filters: Sequence[str]
    ) -> None:
        for filter_ in invalid_filters:
            _check_error(_error_of(matcher.check_filter, filter_, InvalidFilter), filter_, "invalid_filters")

    def test_invalid_topic_is_rejected_with_position(
        self, matcher: TopicMatcher, invalid_topics: Sequence[str]
    ) -> None:
        for topic in invalid_topics:
            _check_error(_error_of(matcher.check_topic, topic, InvalidTopic), topic, "invalid_topics")

    def test_index_finds_matching_filters(
        self, matcher: TopicMatcher, topics: Sequence[str], filters: Sequence[str]
    ) -> None:
        index = matcher.index()
        for filter_ in dict.fromkeys(filters):
            assert index.add(filter_, filter_)
        for topic in topics:
            differing = index.lookup(topic) ^ {filter_ for filter_ in filters if matcher.matches(topic, filter_)}
            assert not differing, f"lookup({topic!r}) of the index differs from matches() for the filters {differing}"

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


def _some_pairs(filters: Sequence[str], topics: Sequence[str]) -> list[tuple[str, str]]:
    pairs = list(itertools.product(dict.fromkeys(filters), dict.fromkeys(topics)))
    return random.Random(2024).sample(pairs, min(len(pairs), 5000))  # noqa: S311 -- the same pairs in every run


def _missing(name: str) -> str:
    return f"the suite needs a fixture '{name}'. Fix: define it in your subclass"


def _check_match(matcher: TopicMatcher, filter_: str, topic: str, expected: bool, fixture: str) -> None:
    must = "must match" if expected else "must not match"
    assert matcher.matches(topic, filter_) is expected, (
        f"filter {filter_!r} {must} topic {topic!r}. {_FIX.format(fixture)}"
    )


def _error_of(check: Callable[[str], str], text: str, kind: type[InvalidTopic]) -> InvalidTopic | None:
    try:
        check(text)
    except kind as error:
        return error
    return None


def _check_error(error: InvalidTopic | None, text: str, fixture: str) -> None:
    shown = repr(text[:80])
    assert error is not None, f"{shown} must be refused. {_FIX.format(fixture)}"
    assert error.text == text, f"the error for {shown} contains another text"
    assert 0 <= error.position <= len(text), (
        f"the error for {shown} has the position {error.position}, outside the text"
    )
    assert error.reason, f"the error for {shown} has no reason"
    assert len(str(error)) < 1000, "a long text must be shortened in the error"
