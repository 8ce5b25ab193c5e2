"""Reasons of close frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close

from dws_core._reason import shorten_reason


@given(st.text(st.characters(codec=None), max_size=200))
def test_shortened_reason_fits_close_frame(reason: str) -> None:
    short = shorten_reason(reason)
    assert len(Close(1000, short).serialize()) <= 125
    whole = reason.encode("utf-8", "replace")
    assert whole.startswith(short.encode())
    assert short.encode() == whole or len(short.encode()) > 119, "nothing is cut without need"
