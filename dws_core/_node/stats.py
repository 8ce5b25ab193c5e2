"""Counters of a node, and the values that `stats()` and `health()` return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dws_core._log.records import BrokerState


@dataclass(slots=True)
class Counters:
    """Running counts since the node was created. See `NodeStats`.

    Attributes:
        refused: Refused clients by reason.
        plan_version: How often an outbox became direct or stopped being direct. The fan-out discards its plans when this
            number changes.
    """

    published: int = 0
    received: int = 0
    deliveries: int = 0
    dropped: int = 0
    overflows: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    plan_version: int = 0

    def count_refusal(self, reason: str) -> None:
        """Count a refused client."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStats:
    """Current numbers of a node.

    Attributes:
        connections: Number of open connections.
        filters: Number of filters of all connections.
        ready_connections: Number of open connections whose server accepts ready frames, the faster path.
        published: Messages sent to the broker since the node was created.
        received: Messages received from the broker.
        waiting_resumes: Number of requests with a cursor that wait for the broker.
        deliveries: Messages multiplied by the connections they were sent to.
        dropped: Deliveries dropped because their connection was too slow.
        overflows: Connections closed with 4000 because they were too slow.
        refused: Clients that were refused, by reason: `origin`, `credentials`, `hello` (no valid token in the first
            message), `malformed`, `full`, `user` and `address` (too many connections), `timeout`, `stopped`,
            `application` (by a dependency, an endpoint or middleware outside of `connect`, or with 1008 after accept,
            if the server uses the protocol class of dws).
    """

    connections: int
    filters: int
    ready_connections: int
    waiting_resumes: int
    published: int
    received: int
    deliveries: int
    dropped: int
    overflows: int
    refused: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """Current state of a node, for readiness routes.

    Attributes:
        started: Whether the node is started and not stopped.
        broker: State of the connection to the broker. `connecting`: not connected yet. `live`: working. `degraded`:
            deliveries are interrupted and resume by themselves. `blocked`: the broker accepts no publishes. `closed`:
            stopped.
        detail: One sentence about the state, without secrets. Empty if the broker has not reported a state yet.
        connections: Number of open connections.
        waiting_resumes: Number of requests with a cursor that wait for the broker.
    """

    started: bool
    broker: BrokerState
    detail: str
    connections: int = 0
    waiting_resumes: int = 0

    @property
    def ready(self) -> bool:
        """Whether to route clients to this node: it is started and its broker is live. Open connections stay open."""
        return self.started and self.broker == "live"
