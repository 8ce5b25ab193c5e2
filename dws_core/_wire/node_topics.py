"""Topics that are reserved for the node: those of broadcasts, direct messages, requests and replies."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from dws_core._errors import ConfigurationError, InvalidMessage

ALL: Final = "$all"
"""Topic of broadcasts."""

_CONN: Final = "$conn/"
_NODE: Final = "$node/"
_REQUEST: Final = "$request/"
_REQUEST_CONN: Final = "$request/conn/"
_REQUEST_USER: Final = "$request/user/"
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
    return _rest(topic, _CONN)


def node_topic(node: str) -> str:
    """Return the topic of the replies to a node."""
    return _NODE + node


def is_request(topic: str) -> bool:
    """Return whether a topic is one of requests to clients."""
    return topic.startswith(_REQUEST)


def conn_request_topic(conn_id: str) -> str:
    """Return the topic of requests to the connections with an id."""
    return _REQUEST_CONN + quote(conn_id, safe="")


def user_request_topic(user: str) -> str:
    """Return the topic of requests to the connections of a user."""
    return _REQUEST_USER + quote(user, safe="")


def requested_conn_id(topic: str) -> str | None:
    """Return the connection id of a topic of `conn_request_topic`, or None for any other topic."""
    return _rest(topic, _REQUEST_CONN)


def requested_user(topic: str) -> str | None:
    """Return the user of a topic of `user_request_topic`, or None for any other topic."""
    return _rest(topic, _REQUEST_USER)


def _rest(topic: str, prefix: str) -> str | None:
    return unquote(topic[len(prefix) :]) if topic.startswith(prefix) else None
