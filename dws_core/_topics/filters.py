"""Topics and filters by levels, MQTT 5.0 §4.7."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dws_core._errors import InvalidFilter, InvalidTopic

MAX_TOPIC_BYTES: Final = 1024
MAX_LEVELS: Final = 32


def check_topic(topic: str) -> str:
    """Return the topic if one may publish to it: valid text without wildcards, 1-1,024 bytes, at most 32 levels.

    Raises:
        InvalidTopic: It breaks one of these rules.
    """
    _check_text(topic, InvalidTopic)
    for position, character in enumerate(topic):
        if character in "+#":
            raise InvalidTopic(
                topic, position=position, reason=f"wildcard {character!r} in a topic", fix="publish to one topic"
            )
    return topic


def check_filter(filter_: str) -> str:
    """Return the filter if one may subscribe to it: as a topic, but with `+` and `#` as whole levels, `#` only last.

    Raises:
        InvalidFilter: It breaks one of these rules (MQTT 5.0 §4.7.1).
    """
    _check_text(filter_, InvalidFilter)
    position = 0
    levels = filter_.split("/")
    for number, level in enumerate(levels):
        if len(level) > 1 and ("+" in level or "#" in level):
            at = position + min(i for i in (level.find("+"), level.find("#")) if i >= 0)
            raise InvalidFilter(
                filter_, position=at, reason="a wildcard must be a whole level", fix="write it between slashes"
            )
        if level == "#" and number != len(levels) - 1:
            raise InvalidFilter(
                filter_, position=position, reason="'#' must be the last level", fix="use '+' for one level"
            )
        position += len(level) + 1
    return filter_


def _check_text(text: str, error: type[InvalidTopic]) -> None:
    if not text:
        raise error(text, position=0, reason="it is empty", fix="give it at least one character")
    if (position := text.find("\0")) >= 0:
        raise error(text, position=position, reason="U+0000 is not allowed", fix="remove it")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as cause:
        raise error(text, position=cause.start, reason="it cannot be written in UTF-8", fix="remove it") from None
    if size > MAX_TOPIC_BYTES:
        reason = f"it has {size} bytes, the limit is {MAX_TOPIC_BYTES}"
        raise error(text, position=MAX_TOPIC_BYTES, reason=reason, fix="shorten it")
    if (levels := text.count("/") + 1) > MAX_LEVELS:
        at = _nth_slash(text, MAX_LEVELS)
        raise error(text, position=at, reason=f"it has {levels} levels, the limit is {MAX_LEVELS}", fix="use fewer")


def _nth_slash(text: str, n: int) -> int:
    position = -1
    for _ in range(n):
        position = text.index("/", position + 1)
    return position


def has_wildcard(filter_: str) -> bool:
    """Say whether a valid filter can match more than one topic."""
    return "+" in filter_ or filter_.endswith("#")


def matches_filter(topic: str, filter_: str) -> bool:
    """Say whether a valid filter matches a valid topic.

    `+` is one level, `#` the rest and the parent (`a/#` matches `a`). A wildcard at the first level does not match a
    topic that begins with `$` (MQTT 5.0 §4.7.2).
    """
    if filter_ == topic:
        return True
    if topic[:1] == "$" and filter_[:1] in ("+", "#"):
        return False
    wanted = filter_.split("/")
    levels = topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        if len(levels) < len(wanted):
            return False
    elif len(levels) != len(wanted):
        return False
    return all(w in ("+", level) for w, level in zip(wanted, levels, strict=False))


def matches(topic: str, patterns: Iterable[str]) -> bool:
    """Say whether a topic matches any of the filters.

    Example:
        >>> matches("chat/1/typing", {"chat/+/typing", "news/#"})
        True

    Raises:
        InvalidFilter: A pattern is not a filter.
    """
    return any(matches_filter(topic, check_filter(pattern)) for pattern in patterns)
