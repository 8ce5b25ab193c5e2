"""The envelope of a payload in the broker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core import CodecError
from dws_core._wire.envelope import SENDER, attributes_of, has_attributes, header_of, open_envelope, sender_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.binary())
def test_any_payload_round_trips_with_its_codec(data: bytes) -> None:
    payload = header_of("json") + data
    assert open_envelope(payload) == ("json", data)
    assert not has_attributes(payload)
    assert attributes_of(payload) == {}


@given(st.binary(), st.dictionaries(TEXT, TEXT, min_size=1, max_size=3))
def test_any_attributes_round_trip(data: bytes, attributes: dict[str, str]) -> None:
    payload = header_of("json", attributes) + data
    assert open_envelope(payload) == ("json", data)
    assert has_attributes(payload)
    assert attributes_of(payload) == attributes


@pytest.mark.parametrize(
    "payload", [b"", b"1 json", b"2 json\n{}", b"2 json \n{}", b"3 json a=b\n{}", b"1 \n{}", b"{}\n", b"\xff\xff\n"]
)
def test_invalid_envelope_is_rejected(payload: bytes) -> None:
    with pytest.raises(CodecError, match="version 1 or 2"):
        open_envelope(payload)


@given(st.text(min_size=1), st.binary())
def test_any_sender_round_trips(sender: str, data: bytes) -> None:
    payload = header_of("json", {SENDER: sender, "exclude": "x"}) + data
    assert sender_of(payload) == sender
    assert open_envelope(payload) == ("json", data)


@given(st.binary())
def test_payload_without_stamp_has_no_sender(data: bytes) -> None:
    assert sender_of(header_of("json") + b" from=eve" + data) is None
    assert sender_of(header_of("json", {"exclude": "x from=eve&from=eve"}) + data) is None
