"""The limits that keep one client from harming the others."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from dws_core._errors import ConfigurationError
from dws_core._limits.backlog import SLOW_CONSUMER, SlowConsumer
from dws_core._wire.close_codes import CloseCode

_ZERO_ALLOWED: Final = frozenset({"handler_grace_s"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a node and of each of its connections.

    Attributes:
        message_bytes: Maximum size of a message from a client, in bytes (of UTF-8 for text). A larger message closes
            the connection with 1009. If None, only the server's own limit applies.
        filters: Maximum number of filters of one connection. Further filters are refused with `too-many-filters`. If
            None, the number is not limited.
        recipients: Maximum number of connection ids of one `send_by_conn_id`. A message with more is refused with
            `too-many-recipients`. If None, the number is not limited.
        messages_per_s: Maximum average rate of messages from a client, in messages per second. A `send_by_conn_id`
            counts as one message for each recipient. Messages above the rate are refused with `rate-limited`. If None,
            the rate is not limited, and `burst` and `flood_messages` are not used.
        burst: Maximum number of messages that a client may send at once. It should be at least the number of
            unacknowledged publishes that your clients allow (`window` of the Python client).
        flood_messages: Maximum number of messages that are refused with `rate-limited` at once. The allowance recovers
            within 10 seconds. One more message closes the connection with 4503. If None, the connection stays open.
        inbox_messages: Maximum number of messages that are queued for a handler. While the queue is full, the node does
            not read from this client.
        handler_stall_s: How long to wait for a busy handler when the inbox is full, in seconds. After that, messages
            are refused with `overloaded`, so that the node still notices when the client disconnects.
        handler_grace_s: Time in seconds for a handler to finish after its client has disconnected. After that, the
            handler is cancelled. If 0, it is cancelled immediately.
        outbox_bytes: Maximum number of bytes that are queued for one connection. It includes the server's own buffer,
            which alone may hold 128 KiB. `slow_consumer` chooses what happens above it. If None, it is not limited.
        slow_consumer: Policy for a connection that exceeds `outbox_bytes`: `close` with 4000, `drop-oldest`,
            `drop-newest`, or `keep-latest` to keep only the newest message of each topic. `close` gives a burst one second:
            the connection is closed unless it has read half of `outbox_bytes` by then, and at once above eight times
            `outbox_bytes`.
        replay_messages: Maximum number of messages replayed to a reconnecting client. If it missed more, it receives a
            `too-many` gap. Also the maximum number of messages in one `history` reply. If None, neither is limited.
        replay_bytes: Maximum payload size of a replay, in bytes. If the client missed more, it receives a `too-many`
            gap. If None, it is not limited.
        resume_patience_s: How long a request with a cursor waits for an unreachable broker, in seconds. After that, it is
            refused with `unavailable`.
        waiting_resumes: Maximum number of requests with a cursor that wait for the broker, on this node. Further ones
            are refused with `unavailable`. If None, the number is not limited.
        read_stall_s: How long the node waits for a client to read a step of its replay, or its earlier replies before a
            `history`, in seconds. After that, the connection is closed with 4000.
        history_bytes: Maximum payload size of one `history` reply, in bytes. The reply contains the newest messages that
            fit. Each 64 KiB of it count as one message against the rate. If None, it is not limited.
        pos_interval_s: Interval in seconds at which clients on quiet topics receive a `pos` frame.
        ping_s: Interval of the server's WebSocket pings, in seconds. Clients receive it in `connected`, and may
            reconnect after twice this time without any frame. Set it to the value of your server (uvicorn:
            `--ws-ping-interval`), because the node cannot read that setting.
        connections: Maximum number of connections of this node. Further clients are refused with HTTP 503, or closed
            with 1013 if they are already accepted. If None, the number is not limited.
        connections_per_user: Maximum number of connections of one user to this node. Further ones are refused with HTTP
            429, or closed with 1013 if they are already accepted. If None, the number is not limited.
        connections_per_address: Maximum number of connections from one address to this node, including those in their
            handshake, by the address that the server reports. Refusals: see `connections_per_user`. If None, the number
            is not limited.
        handshake_s: Timeout in seconds for checking a handshake, which includes the authenticator. After that, the client
            is refused with HTTP 503, or closed with 1013 if it is already accepted.
        hello_timeout_s: Time in seconds in which a client without credentials must send its token, if the manager has
            `hello=True`. After that, the connection is closed with 1008.
        idle_s: How long a connection without filters may send nothing, in seconds. After that, it is closed with 1001.
            If None, it stays open.
        expiry_warning_s: How long before its principal expires a connection receives `expiring`, in seconds, but at most
            half of the remaining time. If None, it receives no warning.
        connection_age_s: Maximum age of a connection, in seconds. It is closed with 4001 at a random time in the last
            tenth of it, so that not all clients reconnect together. If None, the age is not limited.
        close_timeout_s: Timeout in seconds for writing the queued frames and the close frame. After that, the
            connection is dropped.

    Raises:
        ConfigurationError: A value has the wrong type or is not positive, or is None where a number is required.
    """

    message_bytes: int | None = 65_536
    filters: int | None = 128
    recipients: int | None = 100
    messages_per_s: float | None = 100.0
    burst: int = 200
    flood_messages: int | None = 200
    inbox_messages: int = 256
    handler_stall_s: float = 10.0
    handler_grace_s: float = 5.0
    outbox_bytes: int | None = 1_048_576
    slow_consumer: SlowConsumer = "close"
    replay_messages: int | None = 10_000
    replay_bytes: int | None = 16_777_216
    resume_patience_s: float = 30.0
    waiting_resumes: int | None = 10_000
    read_stall_s: float = 30.0
    history_bytes: int | None = 1_048_576
    pos_interval_s: float = 25.0
    ping_s: float = 20.0
    connections: int | None = None
    connections_per_user: int | None = None
    connections_per_address: int | None = None
    handshake_s: float = 10.0
    hello_timeout_s: float = 10.0
    idle_s: float | None = None
    expiry_warning_s: float | None = 30.0
    connection_age_s: float | None = None
    close_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if self.slow_consumer not in SLOW_CONSUMER:
            raise ConfigurationError(
                f"Limits(slow_consumer={self.slow_consumer!r}) is not a policy.",
                fix=f"use one of {', '.join(SLOW_CONSUMER)}",
            )
        for field in fields(self):
            if field.name != "slow_consumer":
                _check(field.name, getattr(self, field.name), str(field.type))


def _check(name: str, value: object, annotation: str) -> None:
    """Raise if a value is no number of the annotated type, or not positive."""
    if value is None and "None" in annotation:
        return
    fix = f"give a positive number{', or None for no limit' if 'None' in annotation else ''}"
    whole = annotation.startswith("int")
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ConfigurationError(f"Limits({name}={value!r}) is not {'an integer' if whole else 'a number'}.", fix=fix)
    if not (value > 0 or (value == 0 and name in _ZERO_ALLOWED)):  # also refuses NaN
        zero = "zero or " if name in _ZERO_ALLOWED else ""
        raise ConfigurationError(f"Limits({name}={value!r}) must be {zero}positive.", fix=fix)


OVER_LIMIT: Final = {
    "message_bytes": f"closed with {CloseCode.MESSAGE_TOO_BIG:d}",
    "filters": "`too-many-filters`",
    "recipients": "`too-many-recipients`",
    "messages_per_s": "`rate-limited`",
    "burst": "`rate-limited`",
    "flood_messages": f"closed with {CloseCode.FLOODING:d}",
    "inbox_messages": "the node stops reading",
    "handler_stall_s": "`overloaded`",
    "handler_grace_s": "the handler is cancelled",
    "outbox_bytes": "`slow_consumer` applies",
    "slow_consumer": f"closed with {CloseCode.TOO_SLOW:d}, or messages are dropped",
    "replay_messages": "gap `too-many`",
    "replay_bytes": "gap `too-many`",
    "resume_patience_s": "`unavailable`",
    "waiting_resumes": "`unavailable`",
    "read_stall_s": f"closed with {CloseCode.TOO_SLOW:d}",
    "history_bytes": "older messages are left out",
    "pos_interval_s": "a `pos` frame is sent",
    "ping_s": "clients may reconnect after twice this time",
    "connections": f"HTTP 503, or {CloseCode.TRY_AGAIN_LATER:d} after accept",
    "connections_per_user": f"HTTP 429, or {CloseCode.TRY_AGAIN_LATER:d} after accept",
    "connections_per_address": f"HTTP 429, or {CloseCode.TRY_AGAIN_LATER:d} after accept",
    "handshake_s": f"HTTP 503, or {CloseCode.TRY_AGAIN_LATER:d} after accept",
    "hello_timeout_s": f"closed with {CloseCode.POLICY_VIOLATION:d}",
    "idle_s": f"closed with {CloseCode.GOING_AWAY:d}",
    "expiry_warning_s": "`expiring` is sent",
    "connection_age_s": f"closed with {CloseCode.DRAINED:d}",
    "close_timeout_s": "the connection is dropped",
}
"""For each field of `Limits`, what happens above the limit. `docs/generate.py` makes the docs table from it."""
