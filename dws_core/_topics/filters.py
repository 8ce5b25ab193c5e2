"""Topics and filters by levels, MQTT 5.0 §4.7: what is valid, and what matches what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from dws_core._errors import InvalidFilter, InvalidTopic

MAX_TOPIC_BYTES: Final = 1024
"""Largest topic or filter, in bytes of UTF-8."""

MAX_LEVELS: Final = 32
"""Most levels of a topic or filter: one more than it has slashes."""


def check_topic(topic: str) -> str:
    """Return the topic, unchanged, if one may publish to it.

    That is valid text without wildcards, 1 to 1,024 bytes of UTF-8, at most 32 levels. Empty levels are allowed, and
    count. Topics that begin with `$` are valid; whose they are says `is_reserved`.

    Raises:
        InvalidTopic: It breaks one of these rules.
    """
    _check_text(topic, InvalidTopic)
    if "+" in topic or "#" in topic:
        position = next(_wildcards(topic))
        reason = f"wildcard {topic[position]!r} in a topic"
        raise InvalidTopic(topic, position=position, reason=reason, fix="publish to one topic; filters have wildcards")
    return topic


def check_filter(filter_: str) -> str:
    """Return the filter, unchanged, if one may subscribe to it: as a topic, but with wildcards in their places.

    `+` and `#` stand only as whole levels, `#` only last (MQTT 5.0 §4.7.1).

    Raises:
        InvalidFilter: It breaks one of these rules.
    """
    _check_text(filter_, InvalidFilter)
    if "+" in filter_ or "#" in filter_:
        for position in _wildcards(filter_):
            _check_wildcard(filter_, position)
    return filter_


def is_reserved(text: str) -> bool:
    """Say whether a topic or filter begins with `$`: it belongs to the node, clients may not use it."""
    return text.startswith("$")


def has_wildcard(filter_: str) -> bool:
    """Say whether a valid filter can match more than one topic."""
    return "+" in filter_ or filter_.endswith("#")


def matches_filter(topic: str, filter_: str) -> bool:
    """Say whether a valid filter matches a valid topic; neither is checked.

    `+` is one level, `#` the rest and the parent (`a/#` matches `a`). A wildcard at the first level does not match a
    topic that begins with `$` (MQTT 5.0 §4.7.2).
    """
    if not has_wildcard(filter_):
        return filter_ == topic
    if topic[:1] == "$" and filter_[:1] in {"+", "#"}:
        return False
    levels, wanted = topic.split("/"), filter_.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        del levels[len(wanted) :]
    if len(levels) != len(wanted):
        return False
    return levels == [level if want == "+" else want for level, want in zip(levels, wanted, strict=True)]


def matches(topic: str, patterns: Iterable[str]) -> bool:
    """Say whether a topic matches any of the filters.

    Args:
        topic: A topic as one would publish to; not checked.
        patterns: Filters. All are checked first, so the answer does not depend on their order.

    Example:
        >>> matches("chat/1/typing", {"chat/+/typing", "news/#"})
        True

    Raises:
        InvalidFilter: A pattern is not a filter.
        TypeError: The patterns are one string, whose characters would be taken for filters.
    """
    if isinstance(patterns, str):
        raise TypeError(f"patterns must be a collection of filters, not one string. Fix: pass {{{patterns!r}}}")
    filters = [check_filter(pattern) for pattern in patterns]
    return any(matches_filter(topic, filter_) for filter_ in filters)


def utf8_size(text: str, error: type[InvalidTopic]) -> int:
    """Return the bytes of a text in UTF-8; raise the error if it cannot be written so."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as cause:
        surrogate = f"U+{ord(text[cause.start]):04X}"
        reason = f"the lone surrogate {surrogate} cannot be written in UTF-8"
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
