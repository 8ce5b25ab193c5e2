"""`KafkaBroker`: the class that the core uses."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from dws_core.plugin import BrokerURL, StreamLogBroker, StreamSettings
from dws_kafka import CAPABILITIES
from dws_kafka._options import KafkaOptions, check, login
from dws_kafka._wire import KafkaWire


class KafkaBroker(StreamLogBroker):
    """Partition logs in one topic of an Apache Kafka for each channel.

    Args:
        url: Location of some brokers of the cluster, and the login.
        options: The options. If None, they are read from the URL.

    Raises:
        InvalidBrokerURL: An option is unknown, malformed or out of range, or a file cannot be used.
    """

    capabilities = CAPABILITIES
    options_class: ClassVar[type[KafkaOptions]] = KafkaOptions

    def __init__(self, url: str | BrokerURL, options: KafkaOptions | None = None) -> None:
        url = url if isinstance(url, BrokerURL) else BrokerURL.parse(url)
        super().__init__(url, options)
        found: KafkaOptions = self.options
        check(url, found)
        self.partitions = found.partitions  # type: ignore[misc]  # overrides the class attribute
        self.capabilities = replace(CAPABILITIES, max_payload_bytes=found.max_payload_bytes)  # type: ignore[misc]
        self.settings = StreamSettings(probe_s=found.probe_s, dead_s=found.dead_s)
        self._login = login(url, found)

    def wire(self) -> KafkaWire:
        """Return a new wire."""
        return KafkaWire(self._login, self.options)
