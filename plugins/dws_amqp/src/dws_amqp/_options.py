"""The settings in a RabbitMQ URL."""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from typing import Final

from dws_core.plugin import BrokerURL, InvalidBrokerURL

_FILES: Final = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqpOptions:
    """The options of a RabbitMQ URL.

    Attributes:
        partitions: Number of streams of a channel. All nodes of a channel must use the same number.
        prefix: Prefix of the names of all streams, queues and exchanges.
        max_age_s: Age after which RabbitMQ removes messages from a stream, in seconds.
        max_stream_bytes: Size above which RabbitMQ removes the oldest messages from a stream, in bytes.
        segment_bytes: Size of the files of a stream, in bytes. RabbitMQ only removes whole files.
        probe_s: Time without messages after which a stream is probed, in seconds.
        dead_s: Time without a reply after which the connection is cut and opened again, in seconds.
        append_timeout_s: Maximum duration of an append until RabbitMQ confirms it, in seconds.
        connect_timeout_s: Timeout of one attempt to connect to a host, in seconds.
        max_payload_bytes: Maximum payload size, in bytes.
        max_queue_bytes: Maximum size of the queued publishes of a partition, in bytes. Further publishes raise
            `BrokerOverloaded`.
        ssl_ca_file: File with the trusted certificates (`amqps://`). If None, the certificates of the system.
        ssl_cert_file: File with the client certificate.
        ssl_key_file: File with the key of the client certificate.
        ssl_verify: Whether to check the certificate and the name of the server.
    """

    partitions: int = 4
    prefix: str = "dws"
    max_age_s: float = 86_400.0
    max_stream_bytes: int = 1_073_741_824
    segment_bytes: int = 16_777_216
    probe_s: float = 1.0
    dead_s: float = 3.0
    append_timeout_s: float = 3.0
    connect_timeout_s: float = 2.0
    max_payload_bytes: int = 1_048_576
    max_queue_bytes: int = 33_554_432
    ssl_ca_file: str | None = None
    ssl_cert_file: str | None = None
    ssl_key_file: str | None = None
    ssl_verify: bool = True


def read_options(url: BrokerURL) -> AmqpOptions:
    """Parse the options of a URL.

    Raises:
        InvalidBrokerURL: An option is unknown, malformed or out of range, or names a missing file.
    """
    options = url.read_options(AmqpOptions)
    rules = {
        "partitions from 1 to 256": 1 <= options.partitions <= 256,
        "a prefix of 1 to 60 letters, digits, '.', '-' and '_' that does not start with 'amq.'": _is_name(
            options.prefix
        ),
        "max_age_s >= 1s": options.max_age_s >= 1,
        "segment_bytes from 64KiB to 2GB": 65_536 <= options.segment_bytes <= 2_000_000_000,
        "max_stream_bytes >= 2 * segment_bytes": options.max_stream_bytes >= 2 * options.segment_bytes,
        "0 < probe_s < dead_s": 0 < options.probe_s < options.dead_s,
        "append_timeout_s > 0": options.append_timeout_s > 0,
        "connect_timeout_s > 0": options.connect_timeout_s > 0,
        "max_payload_bytes from 1 to 16,000,000": 1 <= options.max_payload_bytes <= 16_000_000,
        "max_queue_bytes >= 1": options.max_queue_bytes >= 1,
    }
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise InvalidBrokerURL(f"broker URL {url} has options out of range.", fix="use " + ", ".join(broken))
    for name in _FILES:
        path = getattr(options, name)
        if path is not None and not os.path.isfile(path):
            raise InvalidBrokerURL(
                f"option {name!r} of broker URL {url} is not a file: {path!r}.",
                fix="set the option to the path of a file that this process can read",
            )
    return options


def _is_name(prefix: str) -> bool:
    letters = prefix.replace(".", "").replace("-", "").replace("_", "")
    return letters.isascii() and letters.isalnum() and len(prefix) <= 60 and not prefix.startswith("amq.")
