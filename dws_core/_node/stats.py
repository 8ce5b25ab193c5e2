"""What a node counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Running counts since the node was made; see `NodeStats`.

    Attributes:
        plan_version: How often an outbox became direct or stopped being direct. Plans of the fan-out hold for one version.
    """

    published: int = 0
    received: int = 0
    deliveries: int = 0
    dropped: int = 0
    overflows: int = 0
    plan_version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStats:
    """A node in numbers.

    Attributes:
        connections: Open now.
        filters: Filters of all connections, now.
        ready_connections: Open connections whose server takes ready frames, the quicker way.
        published: Messages handed to the broker since the node was made.
        received: Messages that came from the broker.
        deliveries: Messages times the connections they were handed to.
        dropped: Deliveries that gave way to others because their connection was too slow.
        overflows: ConnectionRegistry closed with 4000 because they were too slow.
    """

    connections: int
    filters: int
    ready_connections: int
    published: int
    received: int
    deliveries: int
    dropped: int
    overflows: int
