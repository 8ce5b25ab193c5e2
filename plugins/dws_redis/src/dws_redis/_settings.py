"""What a Redis URL says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dws_core.plugin import BrokerURL, InvalidBrokerURL


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """What a Redis URL may set.

    Attributes:
        partitions: Logs of a channel; all nodes of a channel need the same.
        prefix: What all keys and channels begin with.
        trust_restart: When a Redis that was restarted is believed to have lost nothing. `always`: only with an append-only
            file that is synced at each write (`appendfsync always`). `aof`: with any append-only file; a power loss may then
            lose a second of messages unannounced. `never`: each restart is announced as a gap.
        probe_s: Seconds of silence before the log is asked for a sign of life.
        dead_s: Seconds of silence before a connection is given up.
        connect_timeout_s: Seconds for one attempt to connect.
        key_ttl_s: Seconds for which a repeat of a key is recognised.
        max_payload_bytes: Largest payload in bytes.
        max_queue_bytes: Bytes of publishes that may wait; above it they are refused as overload.
        ssl_ca_file: Certificates to trust (`rediss://`); none: the system's.
        ssl_cert_file: The client's certificate.
        ssl_key_file: Its key.
        ssl_verify: Whether the server's certificate and name are checked.
    """

    partitions: int = 8
    prefix: str = "dws"
    trust_restart: Literal["always", "aof", "never"] = "always"
    probe_s: float = 1.0
    dead_s: float = 3.0
    connect_timeout_s: float = 2.0
    key_ttl_s: float = 60.0
    max_payload_bytes: int = 1_048_576
    max_queue_bytes: int = 33_554_432
    ssl_ca_file: str | None = None
    ssl_cert_file: str | None = None
    ssl_key_file: str | None = None
    ssl_verify: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where Redis is, and how it is used.

    Attributes:
        shown: The URL without its password.
        tls: Whether the connection is encrypted.
        address: Arguments of redis-py's connection.
        options: Of the URL.
    """

    shown: str
    tls: bool
    address: dict[str, Any]
    options: RedisOptions

    @classmethod
    def read(cls, url: BrokerURL) -> Settings:
        """Read a URL.

        Raises:
            InvalidBrokerURL: It names several hosts, no database number, or an option that is unknown or malformed.
        """
        options = url.read_options(RedisOptions)
        if options.partitions < 1 or not 0 < options.probe_s < options.dead_s:
            raise InvalidBrokerURL(
                f"broker URL {url} has options that cannot work.", fix="use partitions >= 1 and 0 < probe_s < dead_s"
            )
        return cls(
            shown=str(url),
            tls=url.scheme == "rediss",
            address={**_place(url), "username": url.username, "password": url.password, **_tls(url, options)},
            options=options,
        )


def _place(url: BrokerURL) -> dict[str, Any]:
    if url.scheme == "unix":
        return {"path": "/" + url.path}
    if len(url.hosts) > 1:
        raise InvalidBrokerURL(f"broker URL {url} names several hosts.", fix="name one Redis server")
    if url.path and not url.path.isdecimal():
        raise InvalidBrokerURL(f"broker URL {url} has no database number as its path.", fix="write redis://host:6379/0")
    host, port = url.hosts[0] if url.hosts else ("localhost", None)
    return {"host": host or "localhost", "port": port or 6379, "db": int(url.path or 0)}


def _tls(url: BrokerURL, options: RedisOptions) -> dict[str, Any]:
    if url.scheme != "rediss":
        return {}
    return {
        "ssl_ca_certs": options.ssl_ca_file,
        "ssl_certfile": options.ssl_cert_file,
        "ssl_keyfile": options.ssl_key_file,
        "ssl_cert_reqs": "required" if options.ssl_verify else "none",
        "ssl_check_hostname": options.ssl_verify,
    }
