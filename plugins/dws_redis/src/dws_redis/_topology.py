"""Which server holds the log of which partition: redis-py asks the sentinels, and a cluster says it in one answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import RedisError

from dws_core.plugin import BrokerError, BrokerMisconfigured, BrokerUnavailable
from dws_redis._connection import Commands, open_connection, show
from dws_redis._format import Names
from dws_redis._settings import Address, Settings


async def locate(settings: Settings, names: Names, known: Iterable[Address] = ()) -> dict[Address, frozenset[int]]:
    """Say which servers there are, and the partitions of each; one that nobody holds at the moment is left out.

    Args:
        settings: Whom to ask.
        names: Of the keys; what decides where in a cluster they are.
        known: Servers that a cluster had before: any of them can be asked.

    Raises:
        BrokerUnavailable: Nobody answers, or nobody knows the server.
        BrokerMisconfigured: The servers are no cluster.
    """
    everything = frozenset(range(names.layout.partitions))
    if settings.kind == "server":
        return {settings.hosts[0]: everything}
    if settings.kind == "sentinel":
        return {await _primary(settings): everything}
    return await _owners(settings, names, known)


async def _primary(settings: Settings) -> Address:
    options = settings.options
    login = {
        **settings.login,
        "db": 0,
        "username": options.sentinel_username,
        "password": options.sentinel_password,
        "ssl": settings.tls,
        "protocol": 2,
        "socket_timeout": options.connect_timeout_s,
        "socket_connect_timeout": options.connect_timeout_s,
    }
    asked = Sentinel(settings.hosts, sentinel_kwargs=login)  # type: ignore[no-untyped-call]
    try:
        host, port = await asked.discover_master(settings.service)
    except MasterNotFoundError as error:
        raise BrokerUnavailable(
            f"the sentinels of {settings.shown} know no server {settings.service!r} that works: {error}.",
            fix="check the service's name; after a failure they choose another within seconds",
        ) from error
    except (RedisError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(
            f"the sentinels of {settings.shown} refuse to answer: {str(error) or type(error).__name__}.",
            fix="check that they run, sentinel_username and sentinel_password",
        ) from error
    finally:
        for client in asked.sentinels:
            await client.aclose()
    return host, int(port)


async def _owners(settings: Settings, names: Names, known: Iterable[Address]) -> dict[Address, frozenset[int]]:
    servers = list(dict.fromkeys((*known, *settings.hosts)))
    random.shuffle(servers)  # one that is away or out of date is not asked first again and again
    failure: BrokerError | None = None
    for server in servers:
        try:
            ranges = await _slots(settings, server)
        except BrokerUnavailable as error:
            failure = error
            continue
        return _share(names, ranges)
    raise failure or BrokerUnavailable(f"{settings.shown} names no server.")


async def _slots(settings: Settings, server: Address) -> list[tuple[range, Address]]:
    """Ask a server of a cluster who owns which slots."""
    connection = await open_connection(settings, server, name="dws-slots")
    commands = Commands(connection, settings)
    try:
        async with asyncio.timeout(settings.options.connect_timeout_s):
            answer = await commands.call("CLUSTER", "SLOTS")
    except TimeoutError as error:
        raise BrokerUnavailable(f"{show(settings, server)} does not answer.", fix="check that it runs") from error
    except BrokerUnavailable as error:
        if "disabled" in str(error):
            raise BrokerMisconfigured(f"{settings.shown} is no cluster.", fix="write redis:// instead") from error
        raise
    finally:
        await commands.close()
    return [(range(first, last + 1), _address(owner, server)) for first, last, owner, *_ in answer]


def _address(owner: list[Any], asked: Address) -> Address:
    """Return where a server is; one without a name is known by the name under which it was asked."""
    host, port = owner[0], owner[1]
    return (host.decode() if host else asked[0]), port


def _share(names: Names, ranges: list[tuple[range, Address]]) -> dict[Address, frozenset[int]]:
    found: dict[Address, frozenset[int]] = {}
    for partition in range(names.layout.partitions):
        slot = names.slot(partition)
        for slots, owner in ranges:
            if slot in slots:
                found[owner] = found.get(owner, frozenset()) | {partition}
    return found
