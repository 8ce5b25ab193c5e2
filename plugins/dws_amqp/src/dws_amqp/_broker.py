"""`AmqpBroker`: the class that the core uses."""

from __future__ import annotations

from dataclasses import replace

from dws_amqp import CAPABILITIES
from dws_amqp._link import Target
from dws_amqp._options import AmqpOptions, read_options
from dws_amqp._wire import AmqpWire
from dws_core.plugin import BrokerURL, StreamLogBroker, StreamSettings, StreamWire


class AmqpBroker(StreamLogBroker):
    """Partition logs on the streams of RabbitMQ.

    Args:
        url: Where the servers are.
        options: The options of the URL. If None, they are read from the URL.

    Raises:
        InvalidBrokerURL: An option is unknown, malformed or out of range.
    """

    capabilities = CAPABILITIES
    options_class = AmqpOptions

    def __init__(self, url: str | BrokerURL, options: AmqpOptions | None = None) -> None:
        url = url if isinstance(url, BrokerURL) else BrokerURL.parse(url)
        options = read_options(url) if options is None else options
        super().__init__(url, options)
        self.partitions = options.partitions  # type: ignore[misc]  # overrides the class attribute
        self.capabilities = replace(CAPABILITIES, max_payload_bytes=options.max_payload_bytes)  # type: ignore[misc]
        self.settings = StreamSettings(
            queue_bytes=options.max_queue_bytes,
            append_timeout_s=options.append_timeout_s,
            probe_s=options.probe_s,
            dead_s=options.dead_s,
        )
        self._target = Target(url, options)

    def wire(self) -> StreamWire:
        """Return a new wire."""
        return AmqpWire(self._target)
