"""The receivers of a topic, and when cached answers are dropped."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Set as AbstractSet

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from unit._topics.naive import filters, naive, topics

from dws_core._errors import InvalidFilter
from dws_core._topics.router import Router
from dws_core._topics.trie import MqttMatcher, TrieIndex


class CountingIndex(TrieIndex[object]):
    """A real index that records the topics of its lookups, which are the ones that the router had not cached."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def lookup(self, topic: str) -> AbstractSet[object]:
        self.asked.append(topic)
        return super().lookup(topic)


class CountingMatcher(MqttMatcher):
    def __init__(self) -> None:
        self.made = CountingIndex()
        self._indexes = iter([self.made])

    def index(self) -> TrieIndex[object]:
        """Return the index of the receivers, and later those of other filters."""
        return next(self._indexes, TrieIndex())

    def asked(self, router: Router[str], *wanted: str) -> list[str]:
        """Return the topics that the router looks up in the index."""
        self.made.asked.clear()
        for topic in wanted:
            router.receivers(topic)
        return list(self.made.asked)


@pytest.fixture
def matcher() -> CountingMatcher:
    return CountingMatcher()


@pytest.fixture
def router(matcher: CountingMatcher) -> Router[str]:
    return Router(matcher)


def test_matching_receivers_are_returned_once_in_order(router: Router[str]) -> None:
    router.subscribe("x", "a/b")
    router.subscribe("y", "a/+")
    router.subscribe("x", "a/#")
    router.subscribe("z", "c")
    assert router.receivers("a/b") == ("x", "y")
    assert router.receivers("c") == ("z",)
    assert router.receivers("d") == ()


def test_repeated_subscribe_counts_once(router: Router[str]) -> None:
    assert [router.subscribe("x", "a"), router.subscribe("x", "a")] == [True, False]
    assert len(router) == 1
    assert router.receivers("a") == ("x",)
    assert [router.unsubscribe("x", "a"), router.unsubscribe("x", "a")] == [True, False]
    assert len(router) == 0
    assert router.receivers("a") == ()


def test_unsubscribe_of_other_receiver_changes_nothing(router: Router[str]) -> None:
    router.subscribe("x", "a")
    router.subscribe("y", "b")
    assert not router.unsubscribe("y", "a")
    assert not router.unsubscribe("nobody", "a")
    assert router.receivers("a") == ("x",)
    assert len(router) == 2


def test_invalid_filter_is_rejected_without_trace(router: Router[str]) -> None:
    with pytest.raises(InvalidFilter):
        router.subscribe("x", "a/#/b")
    assert len(router) == 0
    assert not router.filters("x")
    assert not router.unsubscribe("x", "a/#/b")


def test_filters_are_listed_in_order(router: Router[str]) -> None:
    for filter_ in ("b", "a/+", "#"):
        router.subscribe("x", filter_)
    router.subscribe("y", "c")
    assert list(router.filters("x")) == ["b", "a/+", "#"]
    assert router.filters("x") == {"#", "b", "a/+"}
    assert router.filters("nobody") == set()
    router.unsubscribe("x", "a/+")
    assert list(router.filters("x")) == ["b", "#"]


def test_remove_drops_only_filters_of_receiver(router: Router[str]) -> None:
    for filter_ in ("a", "a/+", "#"):
        router.subscribe("x", filter_)
        router.subscribe("y", filter_)
    assert router.receivers("a") == ("x", "y")
    router.remove("x")
    router.remove("nobody")
    assert router.receivers("a") == ("y",)
    assert router.receivers("a/1") == ("y",)
    assert router.filters("x") == set()
    assert len(router) == 3


def test_repeated_lookup_uses_cache(router: Router[str], matcher: CountingMatcher) -> None:
    router.subscribe("x", "a")
    assert matcher.asked(router, "a", "a", "nobody", "nobody") == ["a", "nobody"]
    assert router.receivers("a") is router.receivers("a")


@pytest.mark.parametrize("change", ["subscribe", "unsubscribe", "remove"])
def test_exact_filter_change_invalidates_only_its_topic(
    router: Router[str], matcher: CountingMatcher, change: str
) -> None:
    if change != "subscribe":
        router.subscribe("x", "a")
    matcher.asked(router, "a", "b", "a/b")
    getattr(router, change)(*(("x",) if change == "remove" else ("x", "a")))
    assert matcher.asked(router, "a", "b", "a/b") == ["a"]
    assert router.receivers("a") == (("x",) if change == "subscribe" else ())


@pytest.mark.parametrize("change", ["subscribe", "unsubscribe", "remove"])
@pytest.mark.parametrize("filter_", ["a/+", "a/#", "+/b", "#"])
def test_wildcard_change_takes_effect_at_once(router: Router[str], change: str, filter_: str) -> None:
    if change != "subscribe":
        router.subscribe("x", filter_)
    before = router.receivers("a/b")
    getattr(router, change)(*(("x",) if change == "remove" else ("x", filter_)))
    assert (before, router.receivers("a/b")) == (((), ("x",)) if change == "subscribe" else (("x",), ()))


@pytest.mark.parametrize("change", ["subscribe", "unsubscribe", "remove"])
def test_wildcard_change_invalidates_only_matching_topics(
    router: Router[str], matcher: CountingMatcher, change: str
) -> None:
    if change != "subscribe":
        router.subscribe("x", "a/+")
    matcher.asked(router, "a/1", "a/2", "a", "b/1")
    getattr(router, change)(*(("x",) if change == "remove" else ("x", "a/+")))
    assert matcher.asked(router, "a/1", "a", "b/1") == ["a/1"]
    router.subscribe("y", "b/#")
    assert matcher.asked(router, "a/1", "a/2", "a", "b/1") == ["a/2", "b/1"]


def test_many_wildcard_changes_are_forgotten(router: Router[str], matcher: CountingMatcher) -> None:
    matcher.asked(router, "t")
    for number in range(1024):
        router.subscribe("x", f"{number}/+")
    assert matcher.asked(router, "t") == []
    router.subscribe("x", "one more/+")
    assert matcher.asked(router, "t", "t") == ["t"]
    router.subscribe("x", "+")
    assert matcher.asked(router, "t", "t") == ["t"]


def test_change_without_effect_keeps_cache(router: Router[str], matcher: CountingMatcher) -> None:
    router.subscribe("x", "+")
    matcher.asked(router, "a")
    router.subscribe("x", "+")
    router.unsubscribe("y", "+")
    router.remove("y")
    assert matcher.asked(router, "a") == []


def test_full_cache_evicts_oldest_topic(matcher: CountingMatcher) -> None:
    router: Router[str] = Router(matcher, cache_size=2)
    assert matcher.asked(router, "a", "b", "c") == ["a", "b", "c"]
    assert matcher.asked(router, "b", "c") == []
    assert matcher.asked(router, "a", "c", "b") == ["a", "b"]


def test_zero_cache_size_disables_cache(matcher: CountingMatcher) -> None:
    router: Router[str] = Router(matcher, cache_size=0)
    router.subscribe("x", "a")
    assert matcher.asked(router, "a", "a") == ["a", "a"]
    assert router.receivers("a") == ("x",)


def test_cache_holds_fewer_topics_with_many_receivers(matcher: CountingMatcher) -> None:
    router: Router[str] = Router(matcher, cache_size=10)  # 160 receivers
    for number in range(50):
        router.subscribe(f"receiver-{number}", "big/+")
    assert matcher.asked(router, "big/1", "big/2", "big/3") == ["big/1", "big/2", "big/3"]
    assert matcher.asked(router, "big/1", "big/2", "big/3") == []
    assert matcher.asked(router, "big/4", "big/1") == ["big/4", "big/1"]
    assert matcher.asked(router, "big/4", "big/1", "small") == ["small"]


@pytest.mark.parametrize("filter_", ["big", "big/#"])
def test_single_topic_is_cached_with_any_receiver_count(matcher: CountingMatcher, filter_: str) -> None:
    router: Router[str] = Router(matcher, cache_size=10)
    for number in range(1000):
        router.subscribe(f"receiver-{number}", filter_)
    assert matcher.asked(router, "big", "big") == ["big"]
    assert len(router.receivers("big")) == 1000


@pytest.mark.parametrize("filter_", ["topic", "topic/#"])
def test_invalidated_answers_free_cache_space(matcher: CountingMatcher, filter_: str) -> None:
    router: Router[str] = Router(matcher, cache_size=10)
    for number in range(100):
        router.subscribe(f"receiver-{number}", filter_)
    for _ in range(10):
        router.receivers("topic")
        router.unsubscribe("receiver-0", filter_)
        router.subscribe("receiver-0", filter_)
    assert matcher.asked(router, "topic", "other", "third") == ["topic", "other", "third"]
    assert matcher.asked(router, "topic", "other", "third") == []


@pytest.mark.parametrize("leave", ["remove", "unsubscribe"])
def test_receivers_need_little_memory(leave: str) -> None:
    """A receiver without filters needs none."""
    router: Router[int] = Router(MqttMatcher())
    own = [f"$conn/{number}" for number in range(10_000)]
    tracemalloc.start()
    try:
        for receiver in range(len(own)):
            router.remove(receiver)
            router.filters(receiver)
        idle = tracemalloc.get_traced_memory()[0]
        for receiver, filter_ in enumerate(own):
            router.subscribe(receiver, filter_)
        one_each = tracemalloc.get_traced_memory()[0]
        for receiver, filter_ in enumerate(own):
            getattr(router, leave)(*((receiver,) if leave == "remove" else (receiver, filter_)))
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert idle < 2_000
    assert (one_each - idle) / len(own) < 1_000
    assert after < one_each / 10, "only the table of the largest number of receivers stays"


def test_subscribe_cost_does_not_grow_with_receivers() -> None:
    """Compare the number of Python calls, which does not depend on the speed of the machine."""
    router: Router[int] = Router(MqttMatcher())
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    def cost(receivers: range) -> int:
        nonlocal calls
        calls = 0
        sys.setprofile(count)
        try:
            for receiver in receivers:
                router.subscribe(receiver, "news")
        finally:
            sys.setprofile(None)
        return calls

    first = cost(range(100))
    for receiver in range(100, 9_900):
        router.subscribe(receiver, "news")
    assert cost(range(9_900, 10_000)) <= first
    assert router.receivers("news") == tuple(range(10_000))


class RouterModel(RuleBasedStateMachine):
    """A router and a set of pairs go through the same changes."""

    @initialize(cache_size=st.sampled_from([0, 1, 3, 65_536]))
    def start(self, cache_size: int) -> None:
        self.router: Router[int] = Router(MqttMatcher(), cache_size=cache_size)
        self.pairs: set[tuple[int, str]] = set()
        self.seen = ["a", "a/b", "$x"]

    @rule(receiver=st.integers(0, 3), filter_=filters)
    def subscribe(self, receiver: int, filter_: str) -> None:
        assert self.router.subscribe(receiver, filter_) is ((receiver, filter_) not in self.pairs)
        self.pairs.add((receiver, filter_))

    @rule(receiver=st.integers(0, 3), filter_=filters)
    def unsubscribe(self, receiver: int, filter_: str) -> None:
        assert self.router.unsubscribe(receiver, filter_) is ((receiver, filter_) in self.pairs)
        self.pairs.discard((receiver, filter_))

    @rule(data=st.data())
    def unsubscribe_one_that_is_there(self, data: st.DataObject) -> None:
        if self.pairs:
            self.unsubscribe(*data.draw(st.sampled_from(sorted(self.pairs))))

    @rule(receiver=st.integers(0, 3))
    def remove(self, receiver: int) -> None:
        self.router.remove(receiver)
        self.pairs = {pair for pair in self.pairs if pair[0] != receiver}

    @rule(topic=topics)
    def look_at(self, topic: str) -> None:
        self.seen = [*self.seen[-5:], topic]

    @invariant()
    def topics_reach_whom_they_should(self) -> None:
        for topic in self.seen:
            found = self.router.receivers(topic)
            assert set(found) == {receiver for receiver, filter_ in self.pairs if naive(topic, filter_)}
            assert len(set(found)) == len(found)

    @invariant()
    def filters_and_length_agree(self) -> None:
        assert len(self.router) == len(self.pairs)
        for receiver in range(4):
            assert self.router.filters(receiver) == {filter_ for other, filter_ in self.pairs if other == receiver}


RouterModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRouterModel = RouterModel.TestCase
