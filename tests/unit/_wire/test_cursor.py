"""Positions and cursors in the text form that clients store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core._errors import InvalidMessage
from dws_core._wire.cursor import (
    MAX_CURSOR_BYTES,
    Position,
    format_cursor,
    format_position,
    merge,
    parse_cursor,
    parse_position,
    replace,
)

positions = st.builds(
    Position,
    st.integers(0, 99_999),
    st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=16),
    st.integers(0, 2**63 - 1),
)
cursors = st.lists(positions, max_size=40, unique_by=lambda p: p.partition).map(lambda ps: {p.partition: p for p in ps})


def test_position_has_partition_epoch_and_offset() -> None:
    assert format_position(3, "k9x2p0aa", 1042) == "3:k9x2p0aa:1042"
    assert str(Position(3, "k9x2p0aa", 1042)) == "3:k9x2p0aa:1042"
    assert parse_position("3:k9x2p0aa:1042") == Position(3, "k9x2p0aa", 1042)


@given(cursors)
def test_cursor_round_trips(cursor: dict[int, Position]) -> None:
    text = format_cursor(cursor)
    assert parse_cursor(text) == cursor
    assert list(parse_cursor(text)) == sorted(cursor)


@given(st.text(max_size=60))
def test_any_text_is_cursor_or_invalid_message(text: str) -> None:
    try:
        cursor = parse_cursor(text)
    except InvalidMessage:
        return
    assert set(parse_cursor(format_cursor(cursor)).values()) == set(cursor.values())


def test_cursor_of_exact_topic_has_at_most_40_bytes() -> None:
    assert len(format_cursor({999: Position(999, "z" * 16, 2**63 - 1)}).encode()) == 40


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        (",", 0, "'' is not partition:epoch:offset"),
        ("0:a:1,", 6, "'' is not partition:epoch:offset"),
        ("0:a:1, 1:a:1", 6, "' 1:a:1' is not"),
        ("0:a", 0, "'0:a' is not"),
        ("0:a:1:2", 0, "'0:a:1:2' is not"),
        ("01:a:1", 0, "'01:a:1' is not"),
        ("0:a:01", 0, "'0:a:01' is not"),
        ("-1:a:1", 0, "'-1:a:1' is not"),
        ("0:A:1", 0, "'0:A:1' is not"),
        ("0::1", 0, "'0::1' is not"),
        ("0:" + "a" * 17 + ":1", 0, "is not"),
        ("100000:a:1", 0, "is not"),
        ("0:a:\u0661", 0, "is not"),
        ("0:a:1\n", 0, "is not"),
        ("x" * 100, 0, "x... is not".replace("x...", "x" * 37 + "...'")),
        (f"0:a:1,1:a:{2**63}", 6, "an offset must be below 2**63"),
        ("0:a:1,1:a:1,0:a:2", 12, "partition 0 appears twice"),
    ],
)
def test_malformed_cursor_is_rejected_with_position(text: str, position: int, reason: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse_cursor(text)
    assert f"malformed at position {position}: " in caught.value.message
    assert reason in caught.value.message
    assert caught.value.fix


def test_cursor_size_is_checked_before_parsing() -> None:
    with pytest.raises(InvalidMessage, match=r"20,000 characters, the limit is 16,384"):
        parse_cursor("9" * 20_000)
    entries = ",".join(f"{p}:{'e' * 16}:{2**62}" for p in range(390))
    assert len(entries) <= MAX_CURSOR_BYTES
    assert len(parse_cursor(entries)) == 390


def test_empty_cursor_is_empty_text() -> None:
    assert parse_cursor("") == {}
    assert format_cursor({}) == ""


def test_merge_replaces_named_partitions() -> None:
    """This also holds if the new position is lower."""
    held = parse_cursor("0:a:5,1:a:7")
    assert format_cursor(merge(held, parse_cursor("1:a:9"))) == "0:a:5,1:a:9"
    assert format_cursor(merge(held, parse_cursor("1:b:2,2:a:1"))) == "0:a:5,1:b:2,2:a:1"
    assert format_cursor(held) == "0:a:5,1:a:7", "the old cursor is not touched"


def test_replace_drops_all_old_entries() -> None:
    assert format_cursor(replace(parse_cursor("0:a:5,1:a:7"), parse_cursor("1:a:6"))) == "1:a:6"
