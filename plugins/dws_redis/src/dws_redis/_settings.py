"""The settings in a Redis URL."""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from dws_core.plugin import BrokerURL, InvalidBrokerURL

Address: TypeAlias = tuple[str, int] | str
"""Host and port of a server, or the path of its socket file."""

Kind: TypeAlias = Literal["server", "sentinel", "cluster"]

_PORTS: Final[dict[Kind, int]] = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_PARTITIONS: Final[dict[Kind, int]] = {"server": 8, "sentinel": 8, "cluster": 64}
_MOST_PARTITIONS: Final = 4096
_FILES: Final = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """The options of a Redis URL.

    Attributes:
        partitions: Number of partition logs of a channel. All nodes of a channel must use the same number. If None, 64
            in a cluster and 8 otherwise.
        prefix: Prefix of all keys and channels. The number of the database is appended to it, unless it is 0.
        database: Number of the database for a `unix://` URL, whose path is the socket file. Other URLs have the number
            in their path. If None, 0.
        trust_restart: When a restarted Redis counts as lossless. `always`: only with an append-only file that is synced
            at each write (`appendfsync always`). `aof`: with any append-only file. A power failure may then lose a
            second of messages without a gap. `never`: clients receive a gap after each restart.
        probe_s: Time without messages after which the connection is probed, in seconds.
        dead_s: Time without a reply after which a connection is cut and opened again, in seconds.
        connect_timeout_s: Timeout of one attempt to connect, in seconds.
        key_ttl_s: How long a repeated key is recognised, in seconds.
        max_payload_bytes: Maximum payload size, in bytes.
        max_queue_bytes: Maximum size of all queued publishes, in bytes. Further publishes raise `BrokerOverloaded`.
        sentinel_username: User for the sentinels, which have their own users.
        sentinel_password: Password of the sentinel user.
        ssl_ca_file: File with the trusted certificates (`rediss://`). If None, the certificates of the system.
        ssl_cert_file: File with the client certificate.
        ssl_key_file: File with the key of the client certificate.
        ssl_verify: Whether to check the certificate and the name of the server.
    """

    partitions: int | None = None
    prefix: str = "dws"
    database: int | None = None
    trust_restart: Literal["always", "aof", "never"] = "always"
    probe_s: float = 1.0
    dead_s: float = 3.0
    connect_timeout_s: float = 2.0
    key_ttl_s: float = 60.0
    max_payload_bytes: int = 1_048_576
    max_queue_bytes: int = 33_554_432
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    ssl_ca_file: str | None = None
    ssl_cert_file: str | None = None
    ssl_key_file: str | None = None
    ssl_verify: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Location of the servers, and options.

    Attributes:
        masked_url: The URL without its password.
        kind: Kind of the hosts: the server itself, sentinels that monitor it, or some servers of a cluster.
        tls: Whether connections are encrypted.
        hosts: Addresses of the hosts, at least one.
        service: Name of the server at the sentinels. Empty without sentinels.
        partitions: Number of partition logs of a channel.
        login: User, password, database and certificates, as arguments of redis-py's connections.
        options: Options of the URL.
    """

    masked_url: str
    kind: Kind
    tls: bool
    hosts: tuple[Address, ...]
    service: str
    partitions: int
    login: dict[str, Any]
    options: RedisOptions

    @property
    def publish_command(self) -> str:
        """The publishing command. In a cluster, it reaches only connections to the server of the channel."""
        return "SPUBLISH" if self.kind == "cluster" else "PUBLISH"

    @property
    def prefix(self) -> str:
        """Prefix of all keys and channels. Contains the number of the database, because databases share channels."""
        database = self.login["db"]
        return f"{self.options.prefix}:{database}" if database else self.options.prefix

    @classmethod
    def read(cls, url: BrokerURL) -> Settings:
        """Parse a URL.

        Raises:
            InvalidBrokerURL: The URL has several servers, no database number, no service of the sentinels, a missing
                file, or an option that is unknown, malformed or out of range.
        """
        options = url.read_options(RedisOptions)
        kind, tls = _kind(url), url.scheme.startswith("rediss")
        partitions = _PARTITIONS[kind] if options.partitions is None else options.partitions
        _check_values(url, options, partitions)
        _check_files(url, options)
        service, database = _path(url, kind, options.database)
        return cls(
            masked_url=str(url),
            kind=kind,
            tls=tls,
            hosts=_hosts(url, kind),
            service=service,
            partitions=partitions,
            login={
                "username": url.username,
                "password": url.password,
                "db": database,
                **(_certificates(options) if tls else {}),
            },
            options=options,
        )


def _kind(url: BrokerURL) -> Kind:
    if url.scheme.endswith("+sentinel"):
        return "sentinel"
    return "cluster" if url.scheme.endswith("+cluster") else "server"


def _hosts(url: BrokerURL, kind: Kind) -> tuple[Address, ...]:
    if url.scheme == "unix":
        return ("/" + url.path,)
    if kind == "server" and len(url.hosts) > 1:
        raise InvalidBrokerURL(
            f"broker URL {url} names several hosts.",
            fix="name one Redis server, or use redis+sentinel:// or redis+cluster://",
        )
    port = _PORTS[kind]
    return tuple((host or "localhost", given or port) for host, given in url.hosts) or (("localhost", port),)


def _check_values(url: BrokerURL, options: RedisOptions, partitions: int) -> None:
    if not _is_text(options.prefix):  # checked first, because an error message could not contain the URL
        raise InvalidBrokerURL(
            f"the prefix {options.prefix!r} of a {url.scheme}:// URL cannot be encoded.",
            fix="write the prefix in UTF-8",
        )
    rules = {
        f"partitions from 1 to {_MOST_PARTITIONS}": 1 <= partitions <= _MOST_PARTITIONS,
        "a prefix without { and }": not set("{}")
        & set(options.prefix),  # a cluster would read the braces as the hash tag
        "database >= 0": (options.database or 0) >= 0,
        "0 < probe_s < dead_s": 0 < options.probe_s < options.dead_s,
        "connect_timeout_s > 0": options.connect_timeout_s > 0,
        "key_ttl_s >= 1ms": options.key_ttl_s >= 0.001,
        "max_payload_bytes >= 1": options.max_payload_bytes >= 1,
        "max_queue_bytes >= 1": options.max_queue_bytes >= 1,
    }
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise InvalidBrokerURL(f"broker URL {url} has options out of range.", fix="use " + ", ".join(broken))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_files(url: BrokerURL, options: RedisOptions) -> None:
    for name in _FILES:
        path = getattr(options, name)
        if path is not None and not os.path.isfile(path):
            raise InvalidBrokerURL(
                f"option {name!r} of broker URL {url} is not a file: {path!r}.",
                fix="set the option to the path of a file that this process can read",
            )


def _path(url: BrokerURL, kind: Kind, chosen: int | None) -> tuple[str, int]:
    """Return the service name at the sentinels and the number of the database."""
    if url.scheme == "unix":
        return "", chosen or 0
    if chosen is not None:
        fix = (
            "remove it, a cluster has only database 0"
            if kind == "cluster"
            else f"end the path of the URL with /{chosen}"
        )
        raise InvalidBrokerURL(f"broker URL {url} has the option 'database', which only unix:// URLs have.", fix=fix)
    service, _, database = url.path.rpartition("/")
    if kind == "sentinel" and not service:
        service, database = database, "0"
    if (kind == "sentinel") != bool(service) or not (database or "0").isdecimal():
        form = (
            "redis+sentinel://host:26379,host:26379/service/0" if kind == "sentinel" else f"{url.scheme}://host:6379/0"
        )
        needed = "a service and a database number" if kind == "sentinel" else "a database number"
        raise InvalidBrokerURL(f"the path of broker URL {url} is not {needed}.", fix=f"write {form}")
    if kind == "cluster" and int(database or 0):
        raise InvalidBrokerURL(
            f"broker URL {url} names database {database}, but a cluster has only database 0.", fix="remove the path"
        )
    return service, int(database or 0)


def _certificates(options: RedisOptions) -> dict[str, Any]:
    return {
        "ssl_ca_certs": options.ssl_ca_file,
        "ssl_certfile": options.ssl_cert_file,
        "ssl_keyfile": options.ssl_key_file,
        "ssl_cert_reqs": "required" if options.ssl_verify else "none",
        "ssl_check_hostname": options.ssl_verify,
    }
