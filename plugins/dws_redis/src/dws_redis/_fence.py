"""The preparation of each new command connection, before anything is published."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection
from typing import Final, Literal, TypeAlias

from dws_core.plugin import BrokerMisconfigured, BrokerUnavailable, LayoutMismatch, Offset
from dws_redis._connection import Commands
from dws_redis._format import Names
from dws_redis._scripts import ALL, FENCE
from dws_redis._settings import Kind, Settings

logger = logging.getLogger("dws.redis")

LogPosition: TypeAlias = tuple[str, Offset]
"""Epoch and offset of a record."""

_MIN_VERSIONS: Final[dict[Kind, tuple[int, int]]] = {"server": (6, 2), "sentinel": (6, 2), "cluster": (7, 0)}
"""The oldest supported versions. A cluster needs sharded pub/sub."""

_NO_HISTORY: Final = "0" * 40
"""`master_replid2` of a server that was never a replica."""


async def prepare(
    commands: Commands,
    settings: Settings,
    names: Names,
    partitions: Collection[int],
    seen_positions: Callable[[int], list[LogPosition]],
) -> str:
    """Load the scripts and fence the logs. A log that this incarnation of the server may have lost gets a new epoch.

    Args:
        commands: An open connection to the server.
        settings: Kind of the server, and whether a restart is trusted.
        names: Names of the keys.
        partitions: The partitions that the server holds.
        seen_positions: Returns positions in a partition's log that this node has seen. A log that ends before one of
            them was set back.

    Returns:
        The server's incarnation, for `is_same_server`.

    Raises:
        BrokerUnavailable: The server did not reply, or is a replica.
        BrokerMisconfigured: The server is too old, or it is part of a cluster but the URL is not a cluster URL.
        LayoutMismatch: Other nodes of the channel use another number of partitions.
    """
    info = _info(await commands.call("INFO"))
    _check_server(info, settings.kind)
    if 0 in partitions:
        await _check_layout(commands, names, settings.masked_url)
    trusted = await _is_trusted(commands, info, settings.options.trust_restart)
    for script in ALL:
        await commands.call("SCRIPT", "LOAD", script.source)
    incarnation = f"{info.get('run_id', '')}:{info.get('master_replid', '')}"

    async def fence(number: int) -> None:
        base = names.base(number)
        command: list[str | int] = ["EVALSHA", FENCE.digest, 2, base + "m", base + "i"]
        command += (incarnation, secrets.token_hex(6), int(trusted))
        for position in seen_positions(number):
            command += position
        await commands.call(*command)

    await asyncio.gather(*map(fence, partitions))
    return incarnation


def is_same_server(incarnation: str, replication: bytes) -> bool:
    """Return whether the server still has the data of this incarnation, by its reply to `INFO replication`.

    A server that was a replica in the meantime has dropped all records that the other server never received. Its
    process is the same, but every promotion of a replica starts a new replication id (`master_replid`).
    """
    info = _info(replication)
    return _is_primary(info) and incarnation.endswith(":" + info.get("master_replid", ""))


async def _check_layout(commands: Commands, names: Names, masked_url: str) -> None:
    mine = f"{names.layout.partitions} {names.layout.shard_levels}"
    found = await commands.call("GET", names.layout_key)
    if found is None:  # write only if necessary, because the server may be out of memory
        await commands.call("SET", names.layout_key, mine, "NX")
        found = await commands.call("GET", names.layout_key)
    if found != mine.encode():
        text = (found or b"none").decode()
        channel = f"channel {names.layout.channel!r} on {masked_url}"
        raise LayoutMismatch(
            f"{channel} has another layout: {text} (partitions, shard levels), not {mine}.",
            fix=f"use the same layout on all nodes, or stop all nodes and delete the key {names.layout_key}",
        )


def _info(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, found, value in lines if found}


def _is_primary(info: dict[str, str]) -> bool:
    return info.get("role", "master") == "master"


def _check_server(info: dict[str, str], kind: Kind = "server") -> None:
    version = info.get("redis_version", "0")
    oldest = _MIN_VERSIONS[kind]
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        needed = ".".join(map(str, oldest))
        raise BrokerMisconfigured(f"Redis {version} is too old.", fix=f"use Redis {needed} or later, or Valkey")
    if kind != "cluster" and info.get("cluster_enabled", "0") == "1":
        raise BrokerMisconfigured("this Redis is part of a cluster.", fix="write redis+cluster:// instead of redis://")
    if info.get("loading", "0") != "0":  # a loading server reports that it has no append-only file
        raise BrokerUnavailable("Redis is still loading its data.", fix="wait until it has loaded its data")
    if not _is_primary(info):
        raise BrokerUnavailable(
            "this Redis is a replica, which accepts no writes.", fix="write the address of the primary into the URL"
        )
    if not info.get("run_id"):
        raise BrokerMisconfigured(
            "this Redis reports no process id (run_id of INFO), so a restart could not be detected.",
            fix="use a Redis or Valkey server that reports run_id",
        )
    _warn_of_possible_losses(info)


def _warn_of_possible_losses(info: dict[str, str]) -> None:
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0" and policy != "noeviction":
        logger.warning(
            "Redis may evict messages (maxmemory-policy %s). Clients then receive a gap. Fix: set maxmemory-policy "
            "noeviction",
            policy,
        )
    if info.get("aof_enabled", "0") != "1":
        logger.warning(
            "Redis keeps no append-only file. When it restarts, clients receive a gap. Fix: set appendonly yes and "
            "appendfsync always"
        )


async def _is_trusted(commands: Commands, info: dict[str, str], trust: Literal["always", "aof", "never"]) -> bool:
    """Return whether a restarted server counts as lossless. See `RedisOptions.trust_restart`.

    A promoted replica never does, because it may not have received the last acknowledged records.
    """
    if trust == "never" or info.get("aof_enabled", "0") != "1":
        return False
    if info.get("master_replid2", _NO_HISTORY) != _NO_HISTORY:
        return False
    if trust == "aof":
        return True
    try:
        found = await commands.call("CONFIG", "GET", "appendfsync")
    except BrokerUnavailable:  # managed servers often forbid CONFIG
        return False
    return bool(found) and found[1] == b"always"
