"""What happens on each new command connection before anything is published."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection
from typing import Final, Literal

from dws_core.plugin import BrokerMisconfigured, BrokerUnavailable
from dws_redis._connection import Commands
from dws_redis._format import Names
from dws_redis._scripts import ALL, FENCE
from dws_redis._settings import Kind

logger = logging.getLogger("dws.redis")

_OLDEST: Final[dict[Kind, tuple[int, int]]] = {"server": (6, 2), "sentinel": (6, 2), "cluster": (7, 0)}
"""A cluster needs sharded pub/sub."""

_NO_HISTORY: Final = "0" * 40
"""`master_replid2` of a server that was never a replica."""


async def prepare(
    commands: Commands,
    names: Names,
    partitions: Collection[int],
    *,
    kind: Kind,
    trust: Literal["always", "aof", "never"],
) -> None:
    """Load the scripts and fence the logs: one that this incarnation of the server may have lost gets a new epoch.

    Args:
        commands: The connection.
        names: Of the keys.
        partitions: Those that the server holds.
        kind: How the server was found.
        trust: See `RedisOptions.trust_restart`.

    Raises:
        BrokerUnavailable: The server did not answer, or is a replica.
        BrokerMisconfigured: It is too old, or part of a cluster though the URL says otherwise.
    """
    info = _info(await commands.call("INFO"))
    _check(info, kind)
    trusted = await _is_trusted(commands, info, trust)
    for script in ALL:
        await commands.call("SCRIPT", "LOAD", script.source)
    run = info.get("run_id", "")
    bases = [names.base(number) for number in partitions]
    await asyncio.gather(
        *(
            commands.call("EVALSHA", FENCE.digest, 2, base + "m", base + "i", run, secrets.token_hex(6), int(trusted))
            for base in bases
        )
    )


def _info(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, found, value in lines if found}


def _check(info: dict[str, str], kind: Kind = "server") -> None:
    version = info.get("redis_version", "0")
    oldest = _OLDEST[kind]
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        needed = ".".join(map(str, oldest))
        raise BrokerMisconfigured(f"Redis {version} is too old.", fix=f"use Redis {needed} or newer, or Valkey")
    if kind != "cluster" and info.get("cluster_enabled", "0") == "1":
        raise BrokerMisconfigured("this Redis is part of a cluster.", fix="write redis+cluster:// instead of redis://")
    if info.get("loading", "0") != "0":  # and says meanwhile that it keeps no append-only file
        raise BrokerUnavailable("Redis is still loading its data.", fix="wait; it is tried again")
    if info.get("role", "master") != "master":
        raise BrokerUnavailable("this Redis is a replica: nothing can be stored there.", fix="name the primary")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0" and policy != "noeviction":
        logger.warning(
            "Redis may evict messages (maxmemory-policy %s); clients are told a gap then. Fix: set it to noeviction",
            policy,
        )
    if info.get("aof_enabled", "0") != "1":
        logger.warning(
            "Redis keeps no append-only file: when it restarts, clients are told a gap. Fix: appendonly yes, appendfsync always"
        )


async def _is_trusted(commands: Commands, info: dict[str, str], trust: Literal["always", "aof", "never"]) -> bool:
    """Say whether a restarted server is believed to have lost nothing. See `RedisOptions.trust_restart`.

    One that took over from another never is: a replica may not have heard the last that was acknowledged.
    """
    if trust == "never" or info.get("aof_enabled", "0") != "1":
        return False
    if info.get("master_replid2", _NO_HISTORY) != _NO_HISTORY:
        return False
    if trust == "aof":
        return True
    try:
        found = await commands.call("CONFIG", "GET", "appendfsync")
    except BrokerUnavailable:  # not allowed: managed servers often do not
        return False
    return bool(found) and found[1] == b"always"
