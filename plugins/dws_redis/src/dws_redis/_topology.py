"""Which server holds the log of which partition. redis-py asks the sentinels or the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import RedisClusterException, RedisError, SlotNotCoveredError

from dws_core.plugin import BrokerMisconfigured, BrokerUnavailable
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
    if settings.kind == "server":
        return {settings.hosts[0]: frozenset(range(names.layout.partitions))}
    try:
        async with asyncio.timeout(2 * settings.options.connect_timeout_s):
            if settings.kind == "sentinel":
                return {await _primary(settings): frozenset(range(names.layout.partitions))}
            return await _owners(settings, names, known)
    except RedisClusterException as error:
        if "not enabled" in str(error):
            raise BrokerMisconfigured(f"{settings.shown} is no cluster.", fix="write redis:// instead") from error
        raise _unavailable(settings, error) from error
    except (RedisError, OSError, TimeoutError) as error:
        raise _unavailable(settings, error) from error


def _unavailable(settings: Settings, error: Exception) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"{settings.shown} does not say where its data is: {str(error) or type(error).__name__}.",
        fix="check that the hosts named there run, and the service's name",
    )


async def _primary(settings: Settings) -> Address:
    options = settings.options
    login = {
        **settings.login,
        "db": 0,
        "username": options.sentinel_username,
        "password": options.sentinel_password,
    }
    bounds = {**login, **_bounds(settings), "ssl": settings.tls}
    asked = Sentinel(settings.hosts, sentinel_kwargs=bounds)  # type: ignore[no-untyped-call]
    try:
        host, port = await asked.discover_master(settings.service)
    except MasterNotFoundError as error:
        raise BrokerUnavailable(
            f"the sentinels of {settings.shown} know no server {settings.service!r} that works.",
            fix="check the service's name; after a failure they choose another within seconds",
        ) from error
    finally:
        for client in asked.sentinels:
            await client.aclose()
    return host, int(port)


async def _owners(settings: Settings, names: Names, known: Iterable[Address]) -> dict[Address, frozenset[int]]:
    hosts = dict.fromkeys((*known, *settings.hosts))
    cluster = RedisCluster(
        startup_nodes=[ClusterNode(*host) for host in hosts if isinstance(host, tuple)],
        require_full_coverage=False,
        **settings.login,
        **_bounds(settings),
        ssl=settings.tls,
    )
    try:
        await cluster.initialize()
        found: dict[Address, frozenset[int]] = {}
        for partition in range(names.layout.partitions):
            try:
                owner = cluster.get_node_from_key(names.base(partition))
            except SlotNotCoveredError:
                continue
            if owner is not None:
                address = (str(owner.host), int(owner.port))
                found[address] = found.get(address, frozenset()) | {partition}
        return found
    finally:
        await cluster.aclose()


def _bounds(settings: Settings) -> dict[str, Any]:
    seconds = settings.options.connect_timeout_s
    return {"protocol": 2, "socket_timeout": seconds, "socket_connect_timeout": seconds}
