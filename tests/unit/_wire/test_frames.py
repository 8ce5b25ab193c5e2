"""Frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as Reference
from websockets.frames import Opcode

from dws_core._wire.codecs import JSONCodec, MsgpackCodec
from dws_core._wire.frames import Frame, encode_frame, frame_header


def test_frame_has_text_and_kind() -> None:
    frame = encode_frame(JSONCodec(), "é")
    assert frame.text is frame.text
    assert (frame.text, frame.payload, frame.binary, len(frame)) == ('"é"', '"é"'.encode(), False, 4)
    assert encode_frame(MsgpackCodec(), 1).binary
    assert frame.frame(MsgpackCodec()) is frame


def test_ready_frame_is_built_once_and_shared() -> None:
    frame = Frame(b"abc", binary=False)
    assert frame.ready is frame.ready
    assert frame.ready == b"\x81\x03abc"


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("binary", [False, True])
def test_header_equals_that_of_independent_library(length: int, binary: bool) -> None:
    payload = b"x" * length
    opcode = Opcode.BINARY if binary else Opcode.TEXT
    assert frame_header(length, binary=binary) + payload == Reference(opcode, payload).serialize(mask=False)


@given(st.integers(0, 2**63 - 1))
def test_header_uses_shortest_length_form(length: int) -> None:
    header = frame_header(length, binary=True)
    assert len(header) == (2 if length < 126 else 4 if length < 65_536 else 10)
    assert int.from_bytes(header[2:] or header[1:2], "big") == length
