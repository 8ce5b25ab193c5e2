"""Bounds that keep one client from harming the others."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dws_core._errors import ConfigurationError
from dws_core._limits.backlog import SLOW_CONSUMER, SlowConsumer

_ZERO_ALLOWED = frozenset({"handler_grace_s"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a node; None: no limit.

    Attributes:
        message_bytes: Longest message a client may send, in bytes of UTF-8; a longer one closes with 1009.
        filters: Filters of one connection; one more is answered by `too-many-filters`.
        messages_per_s: Messages a client may send in a second, on average; more are answered by `rate-limited`.
        burst: Messages a client may send at once, at least the window of unacknowledged sends of its SDK.
        flood_messages: Messages in a row that are refused for the rate before the connection is closed with 4503.
        inbox_messages: Messages that wait for a handler; then the node stops reading from this client.
        handler_stall_s: Seconds for which a full inbox waits for its handler; then messages are answered by
            `overloaded`, so that the end of the connection is still noticed.
        handler_grace_s: Seconds a handler may go on after its client is gone; then it is cancelled.
        outbox_bytes: Bytes that wait to be written to one connection, in the server's buffer too, which alone may hold
            128 KiB.
        slow_consumer: What happens over `outbox_bytes`: `close` with 4000, `drop-oldest`, `drop-newest`, `keep-latest`
            of each topic.
        replay_messages: Messages that a client which comes back is sent of the past; more are answered by the gap
            `too-many`. Also the most of one `history` answer.
        replay_bytes: Bytes of them.
        pos_interval_s: Seconds between `pos` frames on quiet topics.
        ping_s: Seconds between the WebSocket pings of the server, as clients are told in `connected`: after twice as long
            without a sign of life they may reconnect. Set it as your server is set (uvicorn: `--ws-ping-interval`);
            the node is not told.
        connections: Connections of this node; more are refused with 1013.
        close_timeout_s: Seconds for the last frames and the close frame to be written.
    """

    message_bytes: int | None = 65_536
    filters: int | None = 128
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
    pos_interval_s: float = 25.0
    ping_s: float = 20.0
    connections: int | None = None
    close_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if self.slow_consumer not in SLOW_CONSUMER:
            raise ConfigurationError(
                f"Limits(slow_consumer={self.slow_consumer!r}) is not known.",
                fix=f"use one of {', '.join(SLOW_CONSUMER)}",
            )
        for field in fields(self):
            if field.name == "slow_consumer":
                continue
            value = getattr(self, field.name)
            lowest_allowed = field.name in _ZERO_ALLOWED
            if value is not None and (value < 0 or (value == 0 and not lowest_allowed)):
                raise ConfigurationError(
                    f"Limits({field.name}={value!r}) must be positive.",
                    fix="give a positive number, or None for no limit",
                )
            if value is None and "None" not in str(field.type):
                raise ConfigurationError(f"Limits({field.name}=None) is not possible.", fix="give a positive number")
