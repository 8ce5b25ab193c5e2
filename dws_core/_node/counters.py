"""What a node counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Running counts since the node was made.

    Attributes:
        published: Messages handed to the broker.
        received: Messages that came from the broker.
        deliveries: Messages times the connections they were handed to.
        dropped: Deliveries that gave way to others in the outbox of a slow connection.
        overflows: Connections closed with 4000 because their outbox was over its limit.
    """

    published: int = 0
    received: int = 0
    deliveries: int = 0
    dropped: int = 0
    overflows: int = 0
