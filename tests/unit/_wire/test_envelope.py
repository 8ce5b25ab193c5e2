"""The envelope of a payload in the broker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core import CodecError
from dws_core._wire.envelope import header_of, open_envelope


@given(st.binary())
def test_any_payload_round_trips_with_its_codec(data: bytes) -> None:
    assert open_envelope(header_of("json") + data) == ("json", data)


@pytest.mark.parametrize("payload", [b"", b"1 json", b"2 json\n{}", b"1 \n{}", b"{}\n", b"\xff\xff\n"])
def test_invalid_envelope_is_rejected(payload: bytes) -> None:
    with pytest.raises(CodecError, match="version 1"):
        open_envelope(payload)
