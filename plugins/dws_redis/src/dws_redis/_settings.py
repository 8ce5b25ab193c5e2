"""What a Redis URL says."""

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
    """What a Redis URL may set.

    Attributes:
        partitions: Logs of a channel; all nodes of a channel need the same. None: 8, and 64 in a cluster.
        prefix: What all keys and channels begin with; behind it stands the number of the database, unless it is 0.
        database: Of a `unix://` URL, whose path names the socket file; the others have the number in their path. None: 0.
        trust_restart: When a Redis that was restarted is believed to have lost nothing. `always`: only with an append-only
            file that is synced at each write (`appendfsync always`). `aof`: with any append-only file; a power loss may then
            lose a second of messages unannounced. `never`: each restart is announced as a gap.
        probe_s: Seconds of silence before the log is asked for a sign of life.
        dead_s: Seconds of silence before a connection is given up.
        connect_timeout_s: Seconds for one attempt to connect.
        key_ttl_s: Seconds for which a repeat of a key is recognised.
        max_payload_bytes: Largest payload in bytes.
        max_queue_bytes: Bytes of publishes that may wait; above it they are refused as overload.
        sentinel_username: User for the sentinels, which have users of their own.
        sentinel_password: Its password.
        ssl_ca_file: Certificates to trust (`rediss://`); none: the system's.
        ssl_cert_file: The client's certificate.
        ssl_key_file: Its key.
        ssl_verify: Whether the server's certificate and name are checked.
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
    """Where Redis is, and how it is used.

    Attributes:
        shown: The URL without its password.
        kind: What the hosts are: the server, sentinels that know it, or some servers of a cluster.
        tls: Whether connections are encrypted.
        hosts: At least one.
        service: What the sentinels call the server; empty without sentinels.
        partitions: Logs of a channel.
        login: User, password, database and certificates, as redis-py's connections take them.
        options: Of the URL.
    """

    shown: str
    kind: Kind
    tls: bool
    hosts: tuple[Address, ...]
    service: str
    partitions: int
    login: dict[str, Any]
    options: RedisOptions

    @property
    def publish(self) -> str:
        """The command that publishes: in a cluster only to those that are connected to the channel's server."""
        return "SPUBLISH" if self.kind == "cluster" else "PUBLISH"

    @property
    def prefix(self) -> str:
        """What all keys and channels begin with: with the database's number, since the channels of all databases are the same."""
        database = self.login["db"]
        return f"{self.options.prefix}:{database}" if database else self.options.prefix

    @classmethod
    def read(cls, url: BrokerURL) -> Settings:
        """Read a URL.

        Raises:
            InvalidBrokerURL: It names several servers, no database number, no service of the sentinels, a file that is not
                there, or an option that is unknown, malformed or cannot work.
        """
        options = url.read_options(RedisOptions)
        kind, tls = _kind(url), url.scheme.startswith("rediss")
        partitions = _PARTITIONS[kind] if options.partitions is None else options.partitions
        _check_values(url, options, partitions)
        _check_files(url, options)
        service, database = _path(url, kind, options.database)
        return cls(
            shown=str(url),
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
    if not _is_text(options.prefix):  # first: the URL cannot be shown
        raise InvalidBrokerURL(
            f"the prefix {options.prefix!r} of a {url.scheme}:// URL cannot be encoded.", fix="write it in UTF-8"
        )
    rules = {
        f"partitions from 1 to {_MOST_PARTITIONS}": 1 <= partitions <= _MOST_PARTITIONS,
        "a prefix without { and }": not set("{}") & set(options.prefix),  # a cluster would place all keys by it
        "database >= 0": (options.database or 0) >= 0,
        "0 < probe_s < dead_s": 0 < options.probe_s < options.dead_s,
        "connect_timeout_s > 0": options.connect_timeout_s > 0,
        "key_ttl_s >= 1ms": options.key_ttl_s >= 0.001,
        "max_payload_bytes >= 1": options.max_payload_bytes >= 1,
        "max_queue_bytes >= 1": options.max_queue_bytes >= 1,
    }
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise InvalidBrokerURL(f"broker URL {url} has options that cannot work.", fix="use " + ", ".join(broken))


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
                f"option {name!r} of broker URL {url} names no file: {path!r}.",
                fix="give it the path of a file that this process can read",
            )


def _path(url: BrokerURL, kind: Kind, chosen: int | None) -> tuple[str, int]:
    """Return the sentinels' name for the server, and the number of the database."""
    if url.scheme == "unix":
        return "", chosen or 0
    if chosen is not None:
        where = "leave it out: a cluster has only 0" if kind == "cluster" else f"end the path of the URL in /{chosen}"
        raise InvalidBrokerURL(f"broker URL {url} has an option of unix:// URLs, 'database'.", fix=where)
    service, _, database = url.path.rpartition("/")
    if kind == "sentinel" and not service:
        service, database = database, "0"
    if (kind == "sentinel") != bool(service) or not (database or "0").isdecimal():
        form = (
            "redis+sentinel://host:26379,host:26379/service/0" if kind == "sentinel" else f"{url.scheme}://host:6379/0"
        )
        missing = "no service and database number" if kind == "sentinel" else "no database number"
        raise InvalidBrokerURL(f"broker URL {url} has {missing} as its path.", fix=f"write {form}")
    if kind == "cluster" and int(database or 0):
        raise InvalidBrokerURL(f"broker URL {url} names a database; a cluster has only 0.", fix="leave it out")
    return service, int(database or 0)


def _certificates(options: RedisOptions) -> dict[str, Any]:
    return {
        "ssl_ca_certs": options.ssl_ca_file,
        "ssl_certfile": options.ssl_cert_file,
        "ssl_keyfile": options.ssl_key_file,
        "ssl_cert_reqs": "required" if options.ssl_verify else "none",
        "ssl_check_hostname": options.ssl_verify,
    }
