"""The options of a Kafka URL, and the arguments of aiokafka that follow from a URL."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any, Final, Literal

from aiokafka.codec import has_gzip, has_lz4, has_snappy, has_zstd

from dws_core.plugin import BrokerURL, InvalidBrokerURL

_COMPRESSORS: Final = {"gzip": has_gzip, "lz4": has_lz4, "snappy": has_snappy, "zstd": has_zstd}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """The options of a Kafka URL.

    Attributes:
        partitions: Number of partitions of a channel's topic. All nodes of a channel must use the same number.
        prefix: Prefix of all topics. The topic of the channel `chat` is `dws.chat`.
        replicas: Number of replicas of a topic that the node creates. If None, 3, or one on each broker of a smaller
            cluster.
        retention_s: Retention of a topic that the node creates, in seconds.
        compression: Compression of published messages. All except `gzip` need the extra `dws-kafka[compression]`.
        probe_s: Time without messages in a partition after which it is probed, in seconds.
        dead_s: Time without messages after which the connections are closed and opened again, in seconds.
        max_payload_bytes: Maximum payload size, in bytes. An existing topic may accept less.
        sasl_mechanism: How to log in with the user and the password of the URL.
        ssl_ca_file: File with the trusted certificates (`kafkas://`). If None, the certificates of the system.
        ssl_cert_file: File with the client certificate.
        ssl_key_file: File with the key of the client certificate.
        ssl_verify: Whether to check the certificate and the name of the server.
    """

    partitions: int = 4
    prefix: str = "dws"
    replicas: int | None = None
    retention_s: float = 86_400.0
    compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = "none"
    probe_s: float = 1.0
    dead_s: float = 4.0
    max_payload_bytes: int = 1_048_576
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    ssl_ca_file: str | None = None
    ssl_cert_file: str | None = None
    ssl_key_file: str | None = None
    ssl_verify: bool = True


def check(url: BrokerURL, options: KafkaOptions) -> None:
    """Check the values of a URL and its options.

    Raises:
        InvalidBrokerURL: A value cannot be used.
    """
    rules = {
        "no path, because the option prefix names the topics": not url.path.strip("/"),
        "1 <= partitions <= 4096": 1 <= options.partitions <= 4096,
        "a prefix of 1 to 100 letters, digits, '.', '_' and '-'": _is_name(options.prefix),
        "replicas >= 1": options.replicas is None or options.replicas >= 1,
        "retention_s >= 60s": options.retention_s >= 60,
        "0 < probe_s < dead_s": 0 < options.probe_s < options.dead_s,
        "1 <= max_payload_bytes <= 64MiB": 1 <= options.max_payload_bytes <= 67_108_864,
        "a password with the user": url.username is None or url.password is not None,
    }
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise InvalidBrokerURL(f"broker URL {url} has options out of range.", fix="use " + ", ".join(broken))
    if not _COMPRESSORS.get(options.compression, lambda: True)():
        raise InvalidBrokerURL(
            f"broker URL {url} needs the package cramjam for compression={options.compression}.",
            fix="pip install cramjam",
        )


def login(url: BrokerURL, options: KafkaOptions) -> dict[str, Any]:
    """Return the arguments that all clients of aiokafka share.

    Raises:
        InvalidBrokerURL: A file of certificates cannot be used.
    """
    tls, user = url.scheme == "kafkas", url.username is not None
    hosts = [(host or "localhost", port or 9092) for host, port in url.hosts] or [("localhost", 9092)]
    return {
        "bootstrap_servers": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts],
        "security_protocol": ("SASL_" if user else "") + ("SSL" if tls else "PLAINTEXT"),
        "ssl_context": _context(url, options) if tls else None,
        "sasl_mechanism": options.sasl_mechanism,
        "sasl_plain_username": url.username,
        "sasl_plain_password": url.password,
    }


def _is_name(prefix: str) -> bool:
    return prefix.isascii() and 1 <= len(prefix) <= 100 and all(c.isalnum() or c in "._-" for c in prefix)


def _context(url: BrokerURL, options: KafkaOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.ssl_ca_file)
        if options.ssl_cert_file is not None:
            context.load_cert_chain(options.ssl_cert_file, options.ssl_key_file)
    except OSError as error:
        raise InvalidBrokerURL(
            f"the certificates of broker URL {url} cannot be used: {error}.",
            fix="set the options ssl_…_file to files in PEM format that this process can read",
        ) from error
    if not options.ssl_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
