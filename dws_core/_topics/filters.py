"""Topics and filters with levels: the rules for valid ones, and matching (MQTT 5.0 §4.7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from dws_core._errors import InvalidFilter, InvalidTopic

MAX_TOPIC_BYTES: Final = 1024
"""Maximum length of a topic or filter, in bytes of UTF-8."""

MAX_LEVELS: Final = 32
"""Maximum number of levels of a topic or filter. A topic has one level more than it has slashes."""


def check_topic(topic: str) -> str:
    """Return the topic, unchanged, if it is valid.

    A topic is text of 1 to 1,024 bytes of UTF-8, without wildcards, with at most 32 levels. Empty levels are allowed
    and count. Topics that begin with `$` are valid, but reserved for the node (`is_reserved`).

    Raises:
        InvalidTopic: The topic breaks one of these rules.
    """
    _check_text(topic, InvalidTopic)
    if "+" in topic or "#" in topic:
        position = next(_wildcards(topic))
        reason = f"wildcard {topic[position]!r} in a topic"
        raise InvalidTopic(topic, position=position, reason=reason, fix="publish to one topic, without wildcards")
    return topic


def check_filter(filter_: str) -> str:
    """Return the filter, unchanged, if it is valid.

    A filter follows the rules of a topic and may have wildcards. `+` and `#` must be whole levels, and `#` must be the
    last level (MQTT 5.0 §4.7.1).

    Raises:
        InvalidFilter: The filter breaks one of these rules.
    """
    _check_text(filter_, InvalidFilter)
    if "+" in filter_ or "#" in filter_:
        for position in _wildcards(filter_):
            _check_wildcard(filter_, position)
    return filter_


def is_reserved(topic: str) -> bool:
    """Return whether a topic or filter begins with `$`. These are reserved for the node, clients may not use them.

    The argument is not checked, so every text is allowed. Delivery calls this for each message.
    """
    return topic[:1] == "$"  # a third faster than startswith()


def has_wildcard(filter_: str) -> bool:
    """Return whether a valid filter can match more than one topic."""
    return "+" in filter_ or filter_.endswith("#")


def matches_filter(topic: str, filter_: str) -> bool:
    """Return whether a valid filter matches a valid topic. Neither is checked.

    `+` matches one level. `#` matches all remaining levels, and the parent (`a/#` matches `a`). A wildcard at the first
    level does not match a topic that begins with `$` (MQTT 5.0 §4.7.2).
    """
    if not has_wildcard(filter_):
        return filter_ == topic
    if is_reserved(topic) and filter_[:1] in {"+", "#"}:
        return False
    levels, wanted = topic.split("/"), filter_.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        del levels[len(wanted) :]
    if len(levels) != len(wanted):
        return False
    return levels == [level if want == "+" else want for level, want in zip(levels, wanted, strict=True)]


def matches(topic: str, patterns: Iterable[str]) -> bool:
    """Return whether a topic matches any of the filters.

    Args:
        topic: A topic without wildcards. It is not checked.
        patterns: The filters. All of them are checked first, so the result does not depend on their order.

    Example:
        >>> matches("chat/1/typing", {"chat/+/typing", "news/#"})
        True

    Raises:
        InvalidFilter: A pattern is not a valid filter.
        TypeError: `patterns` is one string instead of a collection of strings.
    """
    if isinstance(patterns, str):
        raise TypeError(f"patterns must be a collection of filters, not one string. Fix: pass {{{patterns!r}}}")
    filters = [check_filter(pattern) for pattern in patterns]
    return any(matches_filter(topic, filter_) for filter_ in filters)


def filter_covers(allowed: str, requested: str) -> bool:
    """Return whether a filter matches every topic that another filter matches.

    Use it in `authorize`, where the subject may be a filter: `chat/+` is covered by `chat/#`, and `#` is not. The result is
    exact, apart from the maximum length of topics.

    Args:
        allowed: A filter whose topics are allowed.
        requested: The requested filter, or a topic.

    Example:
        >>> filter_covers("chat/#", "chat/+/typing"), filter_covers("chat/#", "+/lobby")
        (True, False)

    Raises:
        InvalidFilter: One of them is not a valid filter.
    """
    outer, inner = _levels_of(allowed), _levels_of(requested)
    if is_reserved(requested) and outer[0] == "+":
        return False
    for level, wanted in zip(outer, inner, strict=False):
        if level == "#":
            return True
        if wanted == "#" or level not in ("+", wanted):
            return False
    return len(outer) == len(inner) or outer[len(inner) :] == ["#"]


def _levels_of(filter_: str) -> list[str]:
    """Return the levels of a filter. No topic is empty, so `#` means the same as `+/#`, and `/#` the same as `/+/#`."""
    levels = check_filter(filter_).split("/")
    return [*levels[:-1], "+", "#"] if filter_ in ("#", "/#") else levels


def utf8_size(text: str, error: type[InvalidTopic]) -> int:
    """Return the length of a text in bytes of UTF-8.

    Raises:
        error: The text has a lone surrogate, which UTF-8 cannot encode.
    """
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as cause:
        surrogate = f"U+{ord(text[cause.start]):04X}"
        reason = f"the lone surrogate {surrogate} cannot be encoded in UTF-8"
        raise error(text, position=cause.start, reason=reason, fix="remove it") from None


def _check_text(text: str, error: type[InvalidTopic]) -> None:
    if not text:
        raise error(text, position=0, reason="it is empty", fix="give it at least one character")
    if (position := text.find("\0")) >= 0:
        raise error(text, position=position, reason="U+0000 is not allowed", fix="remove it")
    if (size := utf8_size(text, error)) > MAX_TOPIC_BYTES:
        reason = f"it has {size:,} bytes, the limit is {MAX_TOPIC_BYTES:,}"
        position = len(text[:MAX_TOPIC_BYTES].encode()[:MAX_TOPIC_BYTES].decode(errors="ignore"))
        raise error(text, position=position, reason=reason, fix="shorten it")
    if (levels := text.count("/") + 1) > MAX_LEVELS:
        position = len("/".join(text.split("/", MAX_LEVELS)[:MAX_LEVELS]))
        raise error(
            text, position=position, reason=f"it has {levels} levels, the limit is {MAX_LEVELS}", fix="use fewer"
        )


def _wildcards(text: str) -> Iterator[int]:
    return (position for position, character in enumerate(text) if character in "+#")


def _check_wildcard(filter_: str, position: int) -> None:
    wildcard, end = filter_[position], position + 1
    before, after = filter_[max(position - 1, 0) : position], filter_[end : end + 1]
    if before not in {"", "/"} or after not in {"", "/"}:  # empty: the filter begins or ends here
        reason = f"{wildcard!r} must be a whole level"
        raise InvalidFilter(filter_, position=position, reason=reason, fix="write it between slashes")
    if wildcard == "#" and end < len(filter_):
        raise InvalidFilter(
            filter_, position=position, reason="'#' must be the last level", fix="use '+' for one level"
        )
