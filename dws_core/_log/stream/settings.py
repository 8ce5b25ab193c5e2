"""`StreamSettings`: how a stream broker uses its wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dws_core._errors import ConfigurationError

_MAX_RECORDS: Final = 65_535
"""An offset of a node has 16 bits for the place of a record in its envelope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How a `StreamLogBroker` uses its wire. All times are in seconds.

    Attributes:
        envelope_records: Maximum number of records in an envelope.
        envelope_bytes: Maximum size of the records in an envelope, in bytes. A larger record is sent alone.
        queue_bytes: Maximum size of the publishes without an outcome of each partition, in bytes. Above it, `publish`
            raises `BrokerOverloaded`.
        in_flight: Maximum number of unconfirmed envelopes of each partition. Before the first confirmation of a
            connection it is one. A second one is only sent if it is full.
        append_timeout_s: Maximum duration of an append.
        probe_s: Silence in a partition before a node writes a probe to it.
        dead_s: Silence after which the connection is closed. Longer than `probe_s`.
        step_s: Maximum duration of one step of connecting, and of a pause within a read.
        wait_s: How long `read`, `heads` and `set_interest` wait while the node reconnects.
        behind_s: Delay of the tail above which the node reports `degraded`.
        retry_s: Pause before the next append while the broker is blocked.

    Raises:
        ConfigurationError: A value is out of its bounds.
    """

    envelope_records: int = 64
    envelope_bytes: int = 262_144
    queue_bytes: int = 67_108_864
    in_flight: int = 4
    append_timeout_s: float = 3.0
    probe_s: float = 1.0
    dead_s: float = 3.0
    step_s: float = 5.0
    wait_s: float = 2.0
    behind_s: float = 2.0
    retry_s: float = 0.2

    def __post_init__(self) -> None:
        if not 1 <= self.envelope_records <= _MAX_RECORDS or self.in_flight < 1:
            raise ConfigurationError(
                f"StreamSettings must have envelope_records from 1 to {_MAX_RECORDS} and in_flight of at least 1, not "
                f"{self.envelope_records} and {self.in_flight}.",
                fix="leave out the setting to use its default",
            )
        if not 0 < self.probe_s < self.dead_s:
            raise ConfigurationError(
                f"StreamSettings(probe_s={self.probe_s}, dead_s={self.dead_s}) must have 0 < probe_s < dead_s.",
                fix="increase dead_s",
            )
