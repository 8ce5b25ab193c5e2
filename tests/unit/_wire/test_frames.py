"""Encoded once, shared by all."""

from __future__ import annotations

from dws_core._wire.codecs import JSONCodec, MsgpackCodec
from dws_core._wire.frames import encode_frame


def test_a_frame_knows_its_size_kind_and_text() -> None:
    frame = encode_frame(JSONCodec(), "é")
    assert (len(frame), frame.binary, frame.text) == (4, False, '"é"')
    assert frame.text is frame.text
    assert encode_frame(MsgpackCodec(), 1).binary
