"""A naive matcher for MQTT 5.0 §4.7 that shares no idea with the code under test, and small strategies."""

from __future__ import annotations

from hypothesis import strategies as st


def naive(topic: str, filter_: str) -> bool:
    def follow(have: list[str], want: list[str]) -> bool:
        if want == ["#"]:
            return True
        if not have or not want:
            return have == want
        return want[0] in ("+", have[0]) and follow(have[1:], want[1:])

    hidden = topic.startswith("$") and filter_[0] in "+#"
    return not hidden and follow(topic.split("/"), filter_.split("/"))


NAMES = ["a", "b", "", "é", "$x"]
topics = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join).filter(bool)
_heads = st.lists(st.sampled_from([*NAMES, "+", "+"]), max_size=4)
filters = st.builds(lambda head, rest: "/".join([*head, *rest]), _heads, st.sampled_from([[], [], ["#"]])).filter(bool)
