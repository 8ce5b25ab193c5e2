"""A correct topic matcher, and topic matchers with one flaw each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from factory import found_by

from dws_core.plugin import InvalidFilter, InvalidTopic
from dws_core.testing import MQTTMatcherConformance


class MatcherSuite(MQTTMatcherConformance):
    kind: Callable[[], Any]

    @pytest.fixture
    def matcher(self) -> Any:
        return type(self).kind()


class NaiveMatcher:
    """A correct topic matcher."""

    def check_topic(self, topic: str) -> str:
        self._check(topic, InvalidTopic)
        for position, character in enumerate(topic):
            if character in "+#":
                raise InvalidTopic(topic, position=position, reason="wildcard")
        return topic

    def check_filter(self, filter_: str) -> str:
        self._check(filter_, InvalidFilter)
        levels = filter_.split("/")
        for level in levels:
            if len(level) > 1 and set(level) & set("+#"):
                raise InvalidFilter(filter_, position=0, reason="not a whole level")
        if "#" in levels[:-1]:
            raise InvalidFilter(filter_, position=filter_.index("#"), reason="'#' is not last")
        return filter_

    def _check(self, text: str, error: type[InvalidTopic]) -> None:
        if not text or len(text) > 1000 or "\0" in text or not text.isprintable():
            raise error(text, position=0, reason="not a name")

    def matches(self, topic: str, filter_: str) -> bool:
        if topic.startswith("$") and filter_[0] in "+#":
            return False
        levels, wanted = topic.split("/"), filter_.split("/")
        if wanted[-1] == "#":
            wanted.pop()
            levels, rest = levels[: len(wanted)], len(levels) >= len(wanted)
        else:
            rest = len(levels) == len(wanted)
        return rest and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))

    def index(self) -> Any:
        return NaiveIndex(self)


class NaiveIndex:
    def __init__(self, matcher: NaiveMatcher) -> None:
        self.matcher = matcher
        self.pairs: set[tuple[str, Any]] = set()

    def add(self, filter_: str, receiver: Any) -> bool:
        new = (filter_, receiver) not in self.pairs
        self.pairs.add((filter_, receiver))
        return new

    def discard(self, filter_: str, receiver: Any) -> bool:
        there = (filter_, receiver) in self.pairs
        self.pairs.discard((filter_, receiver))
        return there

    def lookup(self, topic: str) -> Any:
        return {receiver for filter_, receiver in self.pairs if self.matcher.matches(topic, filter_)}

    def __len__(self) -> int:
        return len(self.pairs)


class TestCorrectMatcher(MatcherSuite):
    kind = NaiveMatcher


def flawed_matcher(test: str, text: str = "") -> Callable[[type[Any]], type[Any]]:
    return found_by(test, MatcherSuite, text)


@flawed_matcher("test_examples_of_specification_match", "must match topic")
class LetsHashMissTheParent(NaiveMatcher):
    def matches(self, topic: str, filter_: str) -> bool:
        return super().matches(topic, filter_) and filter_ != f"{topic}/#"


@flawed_matcher("test_matcher_agrees_with_naive_reference", "or the fixture `reference` if your language differs")
class LetsPlusSkipEmptyLevels(NaiveMatcher):
    def matches(self, topic: str, filter_: str) -> bool:
        return super().matches(topic, filter_) and not ("+" in filter_ and topic.startswith("b//"))


@flawed_matcher("test_invalid_filter_is_rejected_with_position", "or the fixture `invalid_filters`")
class AllowsAnyFilter(NaiveMatcher):
    def check_filter(self, filter_: str) -> str:
        return filter_


@flawed_matcher("test_invalid_topic_is_rejected_with_position")
class PublishesToWildcards(NaiveMatcher):
    def check_topic(self, topic: str) -> str:
        self._check(topic, InvalidTopic)
        return topic


@flawed_matcher("test_index_finds_matching_filters", "differs from matches() for the filters")
class HasAnIndexThatKnowsNoHash(NaiveMatcher):
    def index(self) -> Any:
        class Exact(NaiveMatcher):
            def matches(self, topic: str, filter_: str) -> bool:
                return "#" not in filter_ and super().matches(topic, filter_)

        return NaiveIndex(Exact())


@flawed_matcher("test_index_counts_pairs_and_returns_changes")
class CountsFiltersOnly(NaiveMatcher):
    def index(self) -> Any:
        class Counting(NaiveIndex):
            def __len__(self) -> int:
                return len({filter_ for filter_, _ in self.pairs})

        return Counting(self)


@flawed_matcher("test_index_is_correct_after_random_changes")
class ForgetsAFilterOfAllReceivers(NaiveMatcher):
    def index(self) -> Any:
        class Forgetful(NaiveIndex):
            def discard(self, filter_: str, receiver: Any) -> bool:
                there = super().discard(filter_, receiver)
                self.pairs = {pair for pair in self.pairs if pair[0] != filter_}
                return there

        return Forgetful(self)


@flawed_matcher("test_indexes_are_independent")
class HasOneIndexForAll(NaiveMatcher):
    def __init__(self) -> None:
        self.only = NaiveIndex(self)

    def index(self) -> Any:
        return self.only
