"""Topics that are reserved for the node: those of broadcasts and direct messages."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from dws_core._errors import ConfigurationError, InvalidMessage

ALL: Final = "$all"
"""Topic of broadcasts."""

_CONN: Final = "$conn/"
_MAX_CONN_ID_BYTES: Final = 256


def check_conn_id(conn_id: str) -> str:
    """Return the connection id, unchanged, if it is valid.

    Raises:
        InvalidMessage: The id is empty, is longer than 256 bytes of UTF-8, or cannot be encoded in UTF-8.
        ConfigurationError: The application gives an id that is no text.
    """
    given: object = conn_id  # an application may not be type-checked
    if not isinstance(given, str):
        raise ConfigurationError(
            f"a connection id must be text, got a value of type {type(given).__qualname__}.",
            fix="convert it with str()",
        )
    size = len(conn_id.encode("utf-8", "surrogatepass"))
    if not conn_id or size > _MAX_CONN_ID_BYTES or any("\ud800" <= c <= "\udfff" for c in conn_id):
        raise InvalidMessage(
            f"a connection id must be valid text of 1 to {_MAX_CONN_ID_BYTES} bytes, got {size} bytes.",
            fix="choose a shorter id, or let the node choose one",
        )
    return conn_id


def conn_topic(conn_id: str) -> str:
    """Return the topic of a connection id. The id is percent-encoded, because it may contain any character."""
    return _CONN + quote(conn_id, safe="")


def conn_id_of(topic: str) -> str | None:
    """Return the connection id of a `$conn/…` topic, or None for any other topic."""
    return unquote(topic[len(_CONN) :]) if topic.startswith(_CONN) else None
