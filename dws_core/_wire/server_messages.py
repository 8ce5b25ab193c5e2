"""Every message that a node sends to a client: one function for each `type`.

`docs/reference/protocol.md` lists the same types and members, and a test compares them. Members that a function leaves out
are absent from the message. `request_id` is the `id` of the client's request. If None, the message has no `id`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from dws_core._topics.filters import is_reserved
from dws_core._wire.client_errors import ClientError
from dws_core._wire.cursor import Position, format_cursor
from dws_core._wire.message import JSON
from dws_core._wire.node_topics import conn_id_of, user_of

ServerMessage: TypeAlias = dict[str, JSON]
RequestId: TypeAlias = str | int | None
Cursor: TypeAlias = Mapping[int, Position]


def message(topic: str, pos: str | None, sender: str | None = None, *, replay: RequestId = None) -> ServerMessage:
    """Return a delivery without its `data`, which the fan-out appends in encoded form.

    Args:
        topic: Topic of the record. A broadcast, a direct message and a message to a user have no `topic` member.
        pos: Position in the log. If None, the topic has no history.
        sender: Id of the client that published the record. If None, the node does not stamp senders.
        replay: Id of the `subscribe` whose past contains the message. If None, the message belongs to no such past.
    """
    members: ServerMessage = {"type": "message"}
    if not is_reserved(topic):
        members["topic"] = topic
    elif (conn_id := conn_id_of(topic)) is not None:
        members["conn_id"] = conn_id
    elif (user := user_of(topic)) is not None:
        members["user"] = user
    if pos is not None:
        members["pos"] = pos
    if sender is not None:
        members["from"] = sender
    if replay is not None:
        members["replay"] = replay
    return members


def request(reply_to: str, timeout_s: float) -> ServerMessage:
    """Return a request of the application without its `data`, which the fan-out appends in encoded form.

    Args:
        reply_to: Text that the client repeats as the `to` of its `reply`.
        timeout_s: Time for the reply, in seconds.
    """
    return {"type": "request", "reply_to": reply_to, "timeout_s": timeout_s}


def connected(
    request_id: RequestId, *, conn_id: str, ping_s: float, cursor: Cursor, recovered: bool | None
) -> ServerMessage:
    """Return the reply to `connect`. If `recovered` is None, the client sent no cursor."""
    members = _reply("connected", request_id)
    members |= {"conn_id": conn_id, "ping_s": ping_s, "cursor": format_cursor(cursor)}
    if recovered is not None:
        members["recovered"] = recovered
    return members


def ack(
    request_id: RequestId,
    *,
    pos: str | None = None,
    cursor: Cursor | None = None,
    recovered: bool | None = None,
    expires_in_s: float | None = None,
) -> ServerMessage:
    """Return the reply to a request that has been carried out.

    Args:
        request_id: Id of the request. A request without an id receives no `ack`.
        pos: Position of the stored message, for a `send`.
        cursor: The client's new cursor, for a `subscribe`. With `recovered`, the position at which the past begins.
        recovered: Whether the requested past follows, for a `subscribe` with `last` or a cursor.
        expires_in_s: Time until the new token expires, in seconds, for a `refresh`.
    """
    members = _reply("ack", request_id)
    if pos is not None:
        members["pos"] = pos
    if cursor is not None:
        members["cursor"] = format_cursor(cursor)
    if recovered is not None:
        members["recovered"] = recovered
    if expires_in_s is not None:
        members["expires_in_s"] = round(expires_in_s, 3)
    return members


def history(
    request_id: RequestId,
    *,
    topic: str,
    messages: Iterable[tuple[JSON, str, str | None]],
    cursor: str,
    skipped: int = 0,
) -> ServerMessage:
    """Return the reply to `history`. `messages` are data, position and sender (or None), oldest first.

    `skipped` is the number of messages that cannot be expressed in the client's codec.
    """
    members = _reply("history", request_id)
    listed = [
        {"data": data, "pos": pos, **({} if sender is None else {"from": sender})} for data, pos, sender in messages
    ]
    members |= {"topic": topic, "messages": listed, "cursor": cursor}
    if skipped:
        members["skipped"] = skipped
    return members


def error(error: ClientError, request_id: RequestId = None) -> ServerMessage:
    """Return the reply to a request that was refused or failed."""
    members = _reply("error", request_id)
    members |= {"code": error.code, "message": error.message, "temporary": error.temporary}
    if error.retry_in_s is not None:
        members["retry_in_s"] = round(error.retry_in_s, 3)
    return members


def pong(request_id: RequestId) -> ServerMessage:
    """Return the reply to `ping`."""
    return _reply("pong", request_id)


def set_conn_id(conn_id: str) -> ServerMessage:
    """Return the announcement of a new connection id."""
    return {"type": "set_conn_id", "conn_id": conn_id}


def gap(filters: Iterable[str], reason: str, cursor: Cursor, *, replay: RequestId = None) -> ServerMessage:
    """Return the announcement that messages which match the filters may have been lost.

    `replay` is the id of the `subscribe` whose past has the gap.
    """
    members: ServerMessage = {"type": "gap", "filters": sorted(filters), "reason": str(reason)}
    members["cursor"] = format_cursor(cursor)
    return members if replay is None else {**members, "replay": replay}


def pos(cursor: Cursor) -> ServerMessage:
    """Return a new cursor for a client whose topics are quiet."""
    return {"type": "pos", "cursor": format_cursor(cursor)}


def expiring(in_s: float) -> ServerMessage:
    """Return the warning that the connection's token expires in `in_s` seconds."""
    return {"type": "expiring", "in_s": round(in_s, 3)}


def unsubscribed(topic: str, reason: str) -> ServerMessage:
    """Return the notification that the node has removed a filter."""
    return {"type": "unsubscribed", "topic": topic, "reason": reason}


def replayed(request_id: RequestId, cursor: Cursor) -> ServerMessage:
    """Return the end of the past of a `subscribe`, with the client's new cursor."""
    return {**_reply("replayed", request_id), "cursor": format_cursor(cursor)}


def _reply(type_: str, request_id: RequestId) -> ServerMessage:
    return {"type": type_} if request_id is None else {"type": type_, "id": request_id}
