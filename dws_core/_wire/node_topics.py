"""Topics that are reserved for the node: broadcasts, direct messages, users, commands, requests and replies."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from dws_core._errors import ConfigurationError, InvalidMessage

ALL: Final = "$all"
"""Topic of broadcasts."""

COMMANDS: Final = "$commands"
"""Topic of the commands to all nodes."""

_CONN: Final = "$conn/"
_USER: Final = "$user/"
_NODE: Final = "$node/"
_REQUEST: Final = "$request/"
_REQUEST_CONN: Final = "$request/conn/"
_REQUEST_USER: Final = "$request/user/"
_MAX_ID_BYTES: Final = 256


def check_conn_id(conn_id: str) -> str:
    """Return the connection id, unchanged, if it is valid.

    Raises:
        InvalidMessage: The id is empty, is longer than 256 bytes of UTF-8, or cannot be encoded in UTF-8.
        ConfigurationError: The application gives an id that is no text.
    """
    return _check_id(conn_id, "a connection id", fix="choose a shorter id, or let the node choose one")


def check_user_id(user: str) -> str:
    """Return the id of a principal, unchanged, if messages can be sent to it.

    Raises:
        InvalidMessage: The id is empty, is longer than 256 bytes of UTF-8, or cannot be encoded in UTF-8.
        ConfigurationError: The application gives an id that is no text.
    """
    return _check_id(user, "the id of a user", fix="choose a shorter id")


def _check_id(text: str, what: str, *, fix: str) -> str:
    given: object = text  # an application may not be type-checked
    if not isinstance(given, str):
        raise ConfigurationError(
            f"{what} must be text, got a value of type {type(given).__qualname__}.", fix="convert it with str()"
        )
    size = len(text.encode("utf-8", "surrogatepass"))
    if not text or size > _MAX_ID_BYTES or any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidMessage(f"{what} must be valid text of 1 to {_MAX_ID_BYTES} bytes, got {size} bytes.", fix=fix)
    return text


def conn_topic(conn_id: str) -> str:
    """Return the topic of a connection id. The id is percent-encoded, because it may contain any character."""
    return _CONN + quote(conn_id, safe="")


def conn_id_of(topic: str) -> str | None:
    """Return the connection id of a `$conn/…` topic, or None for any other topic."""
    return _rest(topic, _CONN)


def user_topic(user: str) -> str:
    """Return the topic of a user. The id is percent-encoded. Nothing is published to that of an invalid id."""
    return _USER + quote(user, safe="", errors="surrogatepass")


def user_of(topic: str) -> str | None:
    """Return the id of the user of a `$user/…` topic, or None for any other topic."""
    return _rest(topic, _USER)


def own_topics(conn_id: str, user: str | None) -> tuple[str, ...]:
    """Return the reserved topics that a connection receives, whatever its filters are.

    Args:
        conn_id: Id of the connection.
        user: Id of its principal. None if it is not authenticated.
    """
    topics = ALL, conn_topic(conn_id)
    return topics if user is None else (*topics, user_topic(user))


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
