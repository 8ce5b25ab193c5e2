"""Whether a node can serve, for readiness routes."""

from __future__ import annotations

from dataclasses import dataclass

from dws_core._log.records import BrokerState


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """A node's state, as far as it knows.

    Attributes:
        started: Whether the node runs: started and not stopped.
        broker: The way to the broker. `connecting`: not yet; `live`: all well; `degraded`: deliveries are interrupted and
            come back by themselves; `blocked`: the broker takes no publishes; `closed`: stopped.
        detail: One sentence about it, without secrets; empty where the broker has said nothing yet.
        connections: Open now.
    """

    started: bool
    broker: BrokerState
    detail: str
    connections: int = 0

    @property
    def ready(self) -> bool:
        """Whether to send clients here: it runs and the broker is live. Open connections stay open while it is not."""
        return self.started and self.broker == "live"
