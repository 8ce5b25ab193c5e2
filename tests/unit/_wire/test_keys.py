"""Message keys, by which repeats of a message are detected."""

from __future__ import annotations

import pytest

from dws_core import InvalidMessage
from dws_core._wire.keys import check_key, scoped_key


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


def test_scoped_keys_differ_by_scope_and_key() -> None:
    keys = {scoped_key(scope, key) for scope in ("user a", "user b") for key in ("k", "l", "k" * 1024, "l" * 1024)}
    assert len(keys) == 8
    assert all(check_key(key) == key for key in keys)
    assert scoped_key("user a", "k") == scoped_key("user a", "k")
    assert scoped_key("user a", "order-1").endswith(".order-1")


def test_scope_may_be_any_text() -> None:
    assert scoped_key("connection \ud800", "k")


@pytest.mark.parametrize("key", ["", "k" * 1025, "\ud800"])
def test_invalid_key_has_no_scope(key: str) -> None:
    with pytest.raises(InvalidMessage):
        scoped_key("user a", key)
