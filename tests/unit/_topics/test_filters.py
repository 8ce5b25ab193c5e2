"""Validity of topics and filters, and matching (MQTT 5.0 §4.7)."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unit._topics.naive import filters, naive, topics

from dws_core._errors import DWSError, InvalidFilter, InvalidTopic
from dws_core._topics.filters import (
    MAX_LEVELS,
    MAX_TOPIC_BYTES,
    check_filter,
    check_topic,
    filter_covers,
    has_wildcard,
    is_reserved,
    matches,
    matches_filter,
)

VALID = ["a", "/", "//", "a/", "/a", "a//b", " ", "Ä/日本語/😀", "$all", "$conn/x", "a.b*?[c]", "a\tb", "\ufeff"]
VALID += ["x" * MAX_TOPIC_BYTES, "é" * 512, "😀" * 256, "/".join("a" * MAX_LEVELS), "/" * (MAX_LEVELS - 1)]

INVALID = [  # text, position, part of the reason, for topics and for filters
    ("", 0, "empty"),
    ("\0", 0, "U+0000"),
    ("a/b\0c", 3, "U+0000"),
    ("a/\ud800", 2, "surrogate U+D800"),
    ("\udfff", 0, "surrogate U+DFFF"),
    ("x" * 1025, 1024, "1,025 bytes, the limit is 1,024"),
    ("x" * 1_000_000, 1024, "1,000,000 bytes"),
    ("é" * 513, 512, "1,026 bytes"),
    ("x" + "é" * 512, 512, "1,025 bytes"),  # the last character begins inside the limit and ends outside
    ("😀" * 257, 256, "1,028 bytes"),
    ("/".join("a" * 33), 63, "33 levels, the limit is 32"),
    ("/" * 32, 31, "33 levels"),
    ("/" * 1024, 31, "1025 levels"),
]


@pytest.mark.parametrize("check", [check_topic, check_filter])
@pytest.mark.parametrize("text", VALID, ids=lambda text: f"{text[:12]!a}-{len(text)}")
def test_valid_text_is_returned_unchanged(check: type, text: str) -> None:
    assert check(text) is text


@pytest.mark.parametrize(("check", "error"), [(check_topic, InvalidTopic), (check_filter, InvalidFilter)])
@pytest.mark.parametrize(("text", "position", "reason"), INVALID, ids=lambda value: f"{value!a}"[:24])
def test_invalid_text_is_rejected_with_position(
    check: type, error: type[InvalidTopic], text: str, position: int, reason: str
) -> None:
    with pytest.raises(InvalidTopic) as caught:
        check(text)
    assert type(caught.value) is error
    assert (caught.value.text, caught.value.position) == (text, position)
    assert reason in caught.value.reason
    assert "Fix: " in str(caught.value)
    assert len(str(caught.value)) < 600, "a long text is shortened"


@pytest.mark.parametrize(
    ("topic", "position"), [("+", 0), ("#", 0), ("a/+/b", 2), ("a/#", 2), ("ab+", 2), ("a#+", 1), ("ä/é#", 3)]
)
def test_topic_with_wildcard_is_rejected(topic: str, position: int) -> None:
    with pytest.raises(InvalidTopic) as caught:
        check_topic(topic)
    assert not isinstance(caught.value, InvalidFilter)
    assert caught.value.position == position
    assert caught.value.reason == f"wildcard {topic[position]!r} in a topic"


@pytest.mark.parametrize(
    "filter_", ["+", "#", "+/+", "a/+", "+/a", "a/#", "/#", "/+/", "+/#", "$x/#", "$x/+", "日/+/#"]
)
def test_filter_accepts_wildcards_as_whole_levels(filter_: str) -> None:
    assert check_filter(filter_) is filter_


@pytest.mark.parametrize(
    ("filter_", "position", "reason"),
    [
        ("a+", 1, "'+' must be a whole level"),
        ("+a", 0, "'+' must be a whole level"),
        ("a/b+/c", 3, "'+' must be a whole level"),
        ("a/+b/c", 2, "'+' must be a whole level"),
        ("++", 0, "'+' must be a whole level"),
        ("a#", 1, "'#' must be a whole level"),
        ("é/#b", 2, "'#' must be a whole level"),
        ("##", 0, "'#' must be a whole level"),
        ("a/+#", 2, "'+' must be a whole level"),
        ("#/", 0, "'#' must be the last level"),
        ("#/a", 0, "'#' must be the last level"),
        ("a/#/b", 2, "'#' must be the last level"),
        ("+/#/#", 2, "'#' must be the last level"),
        ("+/a/b#", 5, "'#' must be a whole level"),
    ],
)
def test_misplaced_wildcard_is_rejected_with_position(filter_: str, position: int, reason: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        check_filter(filter_)
    assert (caught.value.position, caught.value.reason) == (position, reason)


@given(text=st.text(alphabet="a/+#$\0é\ud800", max_size=12))
@settings(max_examples=300)
def test_any_text_is_valid_or_rejected_with_position(text: str) -> None:
    for check in (check_topic, check_filter):
        try:
            assert check(text) == text
        except InvalidTopic as error:
            assert 0 <= error.position < max(len(text), 1)
            assert isinstance(error, DWSError)


@given(text=st.text(alphabet="a/+#$é", min_size=1, max_size=10))
@settings(max_examples=300)
def test_valid_topic_is_valid_filter_without_wildcards(text: str) -> None:
    try:
        check_topic(text)
    except InvalidTopic:
        assert set(text) & {"+", "#"}
    else:
        assert not has_wildcard(check_filter(text))


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("$all", True),
        ("$conn/#", True),
        ("$", True),
        ("$/a", True),
        ("a/$all", False),
        ("/$", False),
        ("#", False),
        ("", False),
        (" $all", False),
        ("\uff04all", False),  # FULLWIDTH DOLLAR SIGN
    ],
)
def test_leading_dollar_reserves_topic_for_node(topic: str, expected: bool) -> None:
    assert is_reserved(topic) is expected


EXAMPLES = [
    ("a", "a", True),
    ("a", "b", False),
    ("a", "A", False),
    ("a/b", "a", False),
    ("a", "a/", False),
    ("a/b", "a/+", True),
    ("a/b/c", "a/+", False),
    ("a", "a/+", False),
    ("a/", "a/+", True),
    ("/a", "+/a", True),
    ("a//b", "a/+/b", True),
    ("a/b", "+", False),
    ("a", "#", True),
    ("/", "#", True),
    ("a", "a/#", True),
    ("a/", "a/#", True),
    ("a/b/c", "a/#", True),
    ("ab", "a/#", False),
    ("b/a", "a/#", False),
    ("a", "+/#", True),
    ("a", "a/b/#", False),
    ("a/x/c", "a/+/c/#", True),
    ("$all", "#", False),
    ("$all", "+", False),
    ("$conn/1", "+/1", False),
    ("$conn/1", "+/#", False),
    ("$conn/1", "$conn/+", True),
    ("$conn", "$conn/#", True),
    ("$conn/1", "$conn/1", True),
    ("a/$b", "a/+", True),
    ("日本/語", "日本/+", True),
    ("caf\u00e9", "cafe\u0301", False),  # characters are compared, not their appearance
]


@pytest.mark.parametrize(("topic", "filter_", "expected"), EXAMPLES)
def test_filter_matches_level_by_level(topic: str, filter_: str, expected: bool) -> None:
    assert matches_filter(topic, filter_) is expected
    assert naive(topic, filter_) is expected
    assert matches(topic, [filter_]) is expected


@given(topic=topics, filter_=filters)
@example(topic="a", filter_="a/#")
@example(topic="$x/a", filter_="+/a")
@settings(max_examples=300)
def test_matching_agrees_with_naive_matcher(topic: str, filter_: str) -> None:
    assert check_filter(filter_) == filter_
    assert matches_filter(topic, filter_) is naive(topic, filter_)


@pytest.mark.parametrize("deep", [32, 100_000])
def test_matching_does_not_recurse(deep: int) -> None:
    topic = "/".join("a" * deep)
    assert matches_filter(topic, "/".join("+" * deep))
    assert matches_filter(topic, "a/#")
    assert not matches_filter(topic, "/".join(["+"] * (deep - 1) + ["b"]))


def test_topic_matches_if_any_filter_matches() -> None:
    assert matches("chat/1/typing", {"chat/+/typing", "news/#"})
    assert not matches("chat/1/typing", {"chat/+", "news/#"})
    assert not matches("chat/1/typing", ())
    assert matches("b", (pattern for pattern in ["a", "b"])), "any iterable will do"


@pytest.mark.parametrize("patterns", [["a/#/b", "a"], ["a", "a/#/b"]])
def test_invalid_pattern_is_rejected_at_any_index(patterns: list[str]) -> None:
    with pytest.raises(InvalidFilter, match="'a/#/b' is invalid at position 2"):
        matches("a", patterns)


def test_single_string_is_rejected_as_filters() -> None:
    """A string is also an iterable of one-character filters."""
    with pytest.raises(TypeError, match=r"Fix: pass \{'a/\+'\}"):
        matches("a", "a/+")


# -- containment

LEVELS = ["", "a", "$x"]
EVERY_FILTER = [
    "/".join(levels)
    for length in range(1, 4)
    for levels in product([*LEVELS, "+", "#"], repeat=length)
    if any(levels) and "#" not in levels[:-1]
]
EVERY_TOPIC = [
    "/".join(levels) for length in range(1, 5) for levels in product([*LEVELS, "other"], repeat=length) if any(levels)
]
"""The filters have at most three levels, and the topics one more, with one name that no filter has."""


def test_covers_agrees_with_enumeration() -> None:
    matched = {f: frozenset(topic for topic in EVERY_TOPIC if naive(topic, f)) for f in EVERY_FILTER}
    for allowed, requested in product(EVERY_FILTER, repeat=2):
        assert filter_covers(allowed, requested) is (matched[requested] <= matched[allowed]), (allowed, requested)


@given(filters, filters, topics)
def test_covered_filter_matches_nothing_else(allowed: str, requested: str, topic: str) -> None:
    if filter_covers(allowed, requested) and naive(topic, requested):
        assert naive(topic, allowed)


@given(filters, filters, filters)
def test_covers_is_order(a: str, b: str, c: str) -> None:
    assert filter_covers(a, a)
    if filter_covers(a, b) and filter_covers(b, c):
        assert filter_covers(a, c)


@pytest.mark.parametrize(("allowed", "requested"), [("a/#/b", "a"), ("a", "a#"), ("", "a"), ("a", "")])
def test_covers_rejects_invalid_filter(allowed: str, requested: str) -> None:
    with pytest.raises(InvalidFilter):
        filter_covers(allowed, requested)
