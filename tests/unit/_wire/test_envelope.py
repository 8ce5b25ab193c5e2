"""The envelope of a payload in the broker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core import CodecError
from dws_core._wire.envelope import header_of, open_envelope, sender_of


@given(st.binary())
def test_any_payload_round_trips_with_its_codec(data: bytes) -> None:
    assert open_envelope(header_of("json") + data) == ("json", data)


@pytest.mark.parametrize("payload", [b"", b"1 json", b"2 json\n{}", b"1 \n{}", b"{}\n", b"\xff\xff\n"])
def test_invalid_envelope_is_rejected(payload: bytes) -> None:
    with pytest.raises(CodecError, match="version 1"):
        open_envelope(payload)


@given(st.text(min_size=1), st.binary())
def test_any_sender_round_trips(sender: str, data: bytes) -> None:
    payload = header_of("json", sender) + data
    assert sender_of(payload) == sender
    assert open_envelope(payload) == ("json", data)


@given(st.binary())
def test_payload_without_stamp_has_no_sender(data: bytes) -> None:
    assert sender_of(header_of("json") + b" from=eve" + data) is None
    assert sender_of(data.replace(b" from=", b"")) is None
