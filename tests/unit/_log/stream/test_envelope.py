from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.stream.envelope import (
    ENVELOPE_BYTES,
    HEADER_BYTES,
    RECORD_BYTES,
    Draft,
    Envelope,
    Kind,
    UnreadableEnvelope,
    decode,
    encode,
    identity,
    readable,
)

_U64 = st.integers(0, 2**64 - 1)
_ID = st.binary(min_size=8, max_size=8)

DRAFTS = st.builds(
    Draft,
    topic=st.text(max_size=20),
    payload=st.binary(max_size=50),
    size=st.integers(0, 2**32 - 1),
    ttl_ms=_U64,
    key=st.none() | st.text(min_size=1, max_size=10),
)
ENVELOPES = st.builds(
    Envelope,
    kind=st.sampled_from(Kind),
    publisher=_ID,
    time_ms=_U64,
    epoch=_ID,
    began=_U64,
    parent=_ID,
    first=_U64,
    previous=_U64,
    drafts=st.lists(DRAFTS, max_size=5),
)


def _parts(envelope: Envelope) -> tuple[object, ...]:
    e = envelope
    return e.kind, e.publisher, e.time_ms, e.epoch, e.began, e.parent, e.first, e.previous, list(e.drafts)


@given(ENVELOPES)
def test_decode_returns_the_encoded_envelope(envelope: Envelope) -> None:
    assert _parts(decode(encode(envelope))) == _parts(envelope)


@given(ENVELOPES)
def test_largest_size_is_known_before_encoding(envelope: Envelope) -> None:
    """The queue of publishes relies on it, to respect the limits of the streams."""
    assert len(encode(envelope)) <= _largest(envelope)


def test_largest_size_is_reached() -> None:
    name, number = "x" * 2**16, 2**64 - 1
    envelope = _envelope(drafts=[Draft(name, name.encode(), number, number, name)] * 2**4)
    assert len(encode(envelope)) == _largest(envelope)


def _largest(envelope: Envelope) -> int:
    size = ENVELOPE_BYTES
    for draft in envelope.drafts:
        size += RECORD_BYTES + len(draft.topic.encode()) + len((draft.key or "").encode()) + len(draft.payload)
    return size


@given(st.binary(max_size=100))
def test_garbage_is_unreadable_or_an_envelope(data: bytes) -> None:
    found = readable(encode(_envelope())[:-1] + data)
    assert found is None or _parts(decode(encode(found))) == _parts(found)


@given(ENVELOPES, st.data())
def test_damaged_envelope_raises_nothing_else(envelope: Envelope, draw: st.DataObject) -> None:
    data = bytearray(encode(envelope))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    readable(bytes(data[: draw.draw(st.integers(0, len(data)))]))


def _envelope(**changes: object) -> Envelope:
    return Envelope(**{"kind": Kind.RECORDS, "publisher": b"p" * 8, "time_ms": 1, "first": 1} | changes)  # type: ignore[arg-type]


def test_later_version_is_unreadable() -> None:
    data = b"\x02" + encode(_envelope())[1:]
    with pytest.raises(UnreadableEnvelope, match="version 2"):
        decode(data)


def test_unknown_kind_is_unreadable() -> None:
    data = encode(_envelope())
    with pytest.raises(UnreadableEnvelope):
        decode(data[:1] + b"\x09" + data[2:])


def test_truncated_record_is_unreadable() -> None:
    data = encode(_envelope(drafts=[Draft("t", b"payload", 1, 1)]))
    for end in range(len(data)):
        assert readable(data[:end]) is None
    assert readable(data + b"x") is None


def test_more_records_than_places_are_unreadable() -> None:
    drafts = [Draft("t", b"", 1, 1)] * 65_535
    assert len(decode(encode(_envelope(drafts=drafts))).drafts) == 65_535
    with pytest.raises(UnreadableEnvelope, match="more than 65,535 records"):
        decode(encode(_envelope(drafts=[*drafts, drafts[0]])))


@pytest.mark.parametrize(
    "draft",
    [
        1,
        [],
        ["t"],
        ["t", b"", 1],
        ["t", b"", 1, "1"],
        [b"t", b"", 1, 1],
        None,
        {},
        ["t", b"", -1, 1],
        ["t", b"", 1, -1],
    ],
)
def test_record_of_another_shape_is_unreadable(draft: object) -> None:
    header = encode(_envelope())[:HEADER_BYTES]
    assert readable(header + msgspec.msgpack.encode([draft])) is None


def test_text_that_is_no_utf8_is_unreadable() -> None:
    data = encode(_envelope(drafts=[Draft("topic", b"", 1, 1)]))
    assert readable(data.replace(b"topic", b"\xff\xff\xff\xff\xff")) is None


def test_identity_distinguishes_envelopes() -> None:
    assert identity(encode(_envelope())) == identity(encode(_envelope()))
    assert identity(encode(_envelope())) != identity(encode(_envelope(first=2)))
    assert identity(encode(_envelope())) != identity(encode(_envelope(publisher=b"q" * 8)))
