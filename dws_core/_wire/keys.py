"""Idempotency keys, which make it safe to publish a message again."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from dws_core._errors import InvalidMessage

MAX_KEY_BYTES: Final = 1024
"""Maximum length of a key, in bytes of UTF-8."""


def scoped_key(scope: str, key: str) -> str:
    """Return the key under which brokers store a client's key, so that it is compared only with those of its scope.

    Args:
        scope: Identity of the publisher.
        key: The client's key.

    Raises:
        InvalidMessage: The key is not valid.
    """
    prefix = digest(scope)
    scoped = f"{prefix}.{check_key(key)}"
    return scoped if len(scoped.encode()) <= MAX_KEY_BYTES else f"{prefix}.{digest(key)}"


def digest(text: str) -> str:
    """Return a text of fixed length that stands for a text of any length, and does not reveal it."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def check_key(key: str) -> str:
    """Return the key, unchanged, if it is valid: 1 to 1,024 bytes of UTF-8, which every broker can store.

    Raises:
        InvalidMessage: The key is not valid.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        surrogate = f"U+{ord(key[error.start]):04X}"
        raise InvalidMessage(
            f"the key has the lone surrogate {surrogate} at position {error.start}, which cannot be encoded in UTF-8.",
            fix="remove it",
        ) from None
    if not 1 <= size <= MAX_KEY_BYTES:
        raise InvalidMessage(
            f"a key must have 1 to {MAX_KEY_BYTES:,} bytes of UTF-8, got {size:,}.",
            fix="shorten it, or omit it if repeats need not be recognised",
        )
    return key
