"""The history rule that applies to a topic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core import History
from dws_core._log import policy
from dws_core._log.policy import HistoryPolicy
from dws_core._topics.trie import MqttMatcher

matches = MqttMatcher().matches

LONG, SHORT = History(size=500, ttl_s=3600), History(size=5)


def test_topic_without_rule_has_default_history() -> None:
    assert HistoryPolicy({}, matches).of("any/topic") == History()
    assert HistoryPolicy({}, matches, SHORT).of("any/topic") == SHORT


def test_first_matching_filter_applies() -> None:
    rules = {"chat/staff": LONG, "chat/#": SHORT, "cursor/#": History.none()}
    chosen = HistoryPolicy(rules, matches)
    assert [chosen.of(topic) for topic in ("chat/staff", "chat/lobby", "chat", "cursor/7", "news")] == [
        LONG, SHORT, SHORT, History.none(), History(),
    ]  # fmt: skip


def test_node_topics_need_own_filters() -> None:
    chosen = HistoryPolicy({"#": SHORT, "$conn/+": LONG}, matches)
    assert [chosen.of(topic) for topic in ("$all", "$conn/ann", "any")] == [History(), LONG, SHORT]


@given(st.lists(st.sampled_from(["a/b", "a/+", "+/b", "#", "a/#", "c"]), unique=True), st.lists(st.sampled_from("abc")))
def test_cached_answer_equals_rule_lookup(filters: list[str], levels: list[str]) -> None:
    topic = "/".join(levels) or "c"
    rules = {filter_: History(size=number + 1) for number, filter_ in enumerate(filters)}
    chosen = HistoryPolicy(rules, matches)
    expected = next((rules[filter_] for filter_ in filters if matches(topic, filter_)), History())
    assert [chosen.of(topic), chosen.of(topic)] == [expected, expected]


def test_policy_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_MAX_CACHED", 10)
    chosen = HistoryPolicy({"a/#": SHORT}, matches)
    for number in range(100):
        assert chosen.of(f"a/{number}") == SHORT
    assert len(chosen._cache) <= 10


def test_commands_have_their_own_history() -> None:
    """No rule of the application changes it."""
    rules = {"$commands": History.none(), "#": SHORT}
    assert HistoryPolicy(rules, matches).of("$commands") == policy.COMMANDS_HISTORY
    assert HistoryPolicy({}, matches).of("$commands") == policy.COMMANDS_HISTORY
