"""Permissions: a filter is allowed if and only if each of its topics is."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core import ConfigurationError, InvalidFilter, Permissions, Principal

ANN = Principal(id="ann", claims={"tenant": "acme", "team": 7, "admin": True, "empty": "", "rooms": ["a"]})
LEVELS = ["", "a", "b"]
TOPICS = ["/".join(levels) for length in range(1, 6) for levels in product([*LEVELS, "other"], repeat=length)]
TOPICS.remove("")
"""All topics of a small world, with one name that no filter has, and with more levels than any filter."""

_heads = st.lists(st.sampled_from([*LEVELS, "+", "+"]), max_size=3)
filters = st.builds(lambda head, rest: "/".join([*head, *rest]), _heads, st.sampled_from([[], ["#"], ["#"]]))
filters = filters.filter(bool)


def _matches(topic: str, filter_: str) -> bool:
    have, want = topic.split("/"), filter_.split("/")
    if want[-1] == "#":
        want.pop()
        have = have[: len(want)] if len(have) > len(want) else have
    return len(have) == len(want) and all(w in ("+", h) for h, w in zip(have, want, strict=True))


@given(rules=st.lists(filters, max_size=4), wanted=filters)
def test_filter_is_allowed_if_each_topic_is(rules: list[str], wanted: str) -> None:
    allowed = Permissions({rule: {"subscribe"} for rule in rules})
    matched = [topic for topic in TOPICS if _matches(topic, wanted)]
    each = all(any(_matches(topic, rule) for rule in rules) for topic in matched)
    assert allowed(None, "subscribe", wanted) is each


@pytest.mark.parametrize(
    ("rules", "wanted", "expected"),
    [
        (["chat", "chat/+/#"], "chat/#", True),
        (["chat/+/#"], "chat/#", False),
        (["chat/#"], "chat/+", True),
        (["chat/+"], "chat/#", False),
        (["chat/#"], "#", False),
        (["chat/#"], "+/lobby", False),
        (["#"], "$all", False),
        (["+", "+/+/#"], "#", True),
        (["/".join("+" * n) for n in range(1, 33)], "#", True),
        (["/".join("+" * n) for n in range(1, 32)], "#", False),
        (["a/" + "+/" * 30 + "+", "a/" + "+/" * 29 + "+"], "a/" + "+/" * 30 + "#", True),
        (["a" * 1020, "+/+/#"], "a" * 1020 + "/#", False),
    ],
)
def test_filter_examples(rules: list[str], wanted: str, expected: bool) -> None:
    assert Permissions({rule: {"subscribe"} for rule in rules})(None, "subscribe", wanted) is expected


def test_actions_are_separate_and_denied_by_default() -> None:
    rules = Permissions({"chat/+": {"subscribe", "history"}, "$all": {"broadcast"}, "$conn/+": {"send_by_conn_id"}})
    assert rules(None, "subscribe", "chat/1")
    assert rules(None, "history", "chat/1")
    assert not rules(None, "send", "chat/1")
    assert rules(None, "broadcast", "$all")
    assert rules(None, "send_by_conn_id", "any/id + # works")
    assert not Permissions({})(ANN, "subscribe", "chat/1")
    assert not Permissions({"#": {"send"}})(ANN, "broadcast", "$all")
    assert not Permissions({"#": {"send_by_conn_id"}})(ANN, "send_by_conn_id", "ann")


def test_placeholders_are_replaced() -> None:
    rules = Permissions({
        "user/{principal.id}/#": {"subscribe"},
        "tenant/{principal.claims.tenant}/team-{principal.claims.team}": {"send"},
    })  # fmt: skip
    assert rules(ANN, "subscribe", "user/ann/#")
    assert not rules(ANN, "subscribe", "user/bo/inbox")
    assert not rules(ANN, "subscribe", "user/+/inbox")
    assert rules(ANN, "send", "tenant/acme/team-7")
    assert not rules(ANN, "send", "tenant/acme/team-8")
    assert not rules(None, "subscribe", "user/ann/#")


@pytest.mark.parametrize(
    "id_", ["+", "#", "a/b", "a/#", "a+b", "", "\0", "$all", "\ud800", "{principal.id}", "x" * 2000]
)
def test_id_never_widens_a_rule(id_: str) -> None:
    """An id that is not one plain level is denied. All others match their own level only."""
    rules = Permissions({"user/{principal.id}/#": {"subscribe"}, "{principal.id}": {"broadcast"}})
    for wanted in ("user/ann/inbox", "user/+/inbox", "user/#", "user/a/b", "user//x", "user/a/#", "#"):
        assert not rules(Principal(id=id_), "subscribe", wanted)
    assert not rules(Principal(id=id_), "broadcast", "$all")


@given(
    st.text(alphabet="a/+#$", max_size=4), st.sampled_from(["user/b/x", "user/b/#", "user/+/#", "user/a/a/x", "user/#"])
)
def test_any_id_reaches_only_its_own_level(id_: str, wanted: str) -> None:
    rules = Permissions({"user/{principal.id}/#": {"subscribe"}})
    if rules(Principal(id=id_), "subscribe", wanted):
        assert wanted.split("/")[1] == id_


@pytest.mark.parametrize("claim", ["missing", "admin", "empty", "rooms"])
def test_unusable_claim_applies_no_rule(claim: str) -> None:
    rules = Permissions({f"t/{{principal.claims.{claim}}}": {"send"}})
    for topic in ("t/", "t/True", "t/None", "t/['a']", "t/1"):
        assert not rules(ANN, "send", topic)


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"a/#/b": {"send"}}, "not a filter"),
        ({"a": "send"}, "has the actions 'send'"),
        ({"a": {"write"}}, "has the actions"),
        ({"a": set()}, "has the actions"),
        ({"{user.id}": {"send"}}, "has the placeholder {user.id}"),
        ({"{principal.claims.}": {"send"}}, "has the placeholder"),
    ],
)
def test_wrong_rule_is_refused_at_start(rules: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text.replace("{", r"\{")):
        Permissions(rules)


def test_subject_that_is_no_filter_is_rejected() -> None:
    with pytest.raises(InvalidFilter):
        Permissions({"#": {"subscribe"}})(None, "subscribe", "a/#/b")
