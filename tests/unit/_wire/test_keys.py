"""Message keys, by which repeats of a message are detected."""

from __future__ import annotations

import pytest

from dws_core import InvalidMessage
from dws_core._wire.keys import check_key


@pytest.mark.parametrize("key", ["k", "x" * 1024, "é" * 512, "any text: \0 /+# \n"])
def test_key_may_be_any_text_up_to_1024_bytes(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(("key", "size"), [("", "0"), ("x" * 1025, "1,025"), ("é" * 513, "1,026")])
def test_empty_or_too_long_key_is_rejected(key: str, size: str) -> None:
    with pytest.raises(InvalidMessage, match=rf"1 to 1,024 bytes of UTF-8, got {size}\. Fix: shorten it"):
        check_key(key)


def test_key_that_is_not_valid_utf_8_is_rejected() -> None:
    with pytest.raises(InvalidMessage, match=r"lone surrogate U\+D800 at position 2.*Fix: remove it"):
        check_key("ab\ud800")
