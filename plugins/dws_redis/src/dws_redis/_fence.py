"""What happens on each new command connection before anything is published."""

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

Place: TypeAlias = tuple[str, Offset]
"""Epoch and offset."""

_OLDEST: Final[dict[Kind, tuple[int, int]]] = {"server": (6, 2), "sentinel": (6, 2), "cluster": (7, 0)}
"""A cluster needs sharded pub/sub."""

_NO_HISTORY: Final = "0" * 40
"""`master_replid2` of a server that was never a replica."""


async def prepare(
    commands: Commands,
    settings: Settings,
    names: Names,
    partitions: Collection[int],
    seen: Callable[[int], list[Place]],
) -> str:
    """Load the scripts and fence the logs: one that this incarnation of the server may have lost gets a new epoch.

    Args:
        commands: The connection.
        settings: What is known of the server, and how far it is trusted.
        names: Of the keys.
        partitions: Those that the server holds.
        seen: Returns places in a partition's log that this node has seen: a log that ends before one has gone back.

    Returns:
        The server's incarnation, for `is_still`.

    Raises:
        BrokerUnavailable: The server did not answer, or is a replica.
        BrokerMisconfigured: It is too old, or part of a cluster though the URL says otherwise.
        LayoutMismatch: Other nodes of the channel have another number of partitions.
    """
    info = _info(await commands.call("INFO"))
    _check(info, settings.kind)
    if 0 in partitions:
        await _check_layout(commands, names, settings.shown)
    trusted = await _is_trusted(commands, info, settings.options.trust_restart)
    for script in ALL:
        await commands.call("SCRIPT", "LOAD", script.source)
    incarnation = f"{info.get('run_id', '')}:{info.get('master_replid', '')}"

    async def fence(number: int) -> None:
        base = names.base(number)
        command: list[str | int] = ["EVALSHA", FENCE.digest, 2, base + "m", base + "i"]
        command += (incarnation, secrets.token_hex(6), int(trusted))
        for place in seen(number):
            command += place
        await commands.call(*command)

    await asyncio.gather(*map(fence, partitions))
    return incarnation


def is_still(incarnation: str, replication: bytes) -> bool:
    """Say whether the server is what it was, by its answer to `INFO replication`.

    A server that was a replica meanwhile has forgotten what the other one never heard of. Its process is the same, but since a
    replica that is promoted begins a history of its own (`master_replid`), it shows.
    """
    info = _info(replication)
    return _is_primary(info) and incarnation.endswith(":" + info.get("master_replid", ""))


async def _check_layout(commands: Commands, names: Names, shown: str) -> None:
    layout = names.layout
    mine = f"{layout.partitions} {layout.shard_levels}"
    found = await commands.call("GET", names.shape)
    if found is None:  # else nothing is written: the server may have no memory
        await commands.call("SET", names.shape, mine, "NX")
        found = await commands.call("GET", names.shape)
    if found != mine.encode():
        text = (found or b"none").decode()
        raise LayoutMismatch(
            f"channel {layout.channel!r} on {shown} has another layout: {text} (partitions, shard levels), not {mine}.",
            fix=f"give all nodes of a channel the same; to change it, stop them all and delete the key {names.shape}",
        )


def _info(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, found, value in lines if found}


def _is_primary(info: dict[str, str]) -> bool:
    return info.get("role", "master") == "master"


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
    if not _is_primary(info):
        raise BrokerUnavailable("this Redis is a replica: nothing can be stored there.", fix="name the primary")
    if not info.get("run_id"):
        raise BrokerMisconfigured(
            "this Redis does not say which process it is (INFO: run_id), so that a restart could not be noticed.",
            fix="use one that does",
        )
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
