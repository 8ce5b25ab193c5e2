"""Finds the server of each partition, with one request to a sentinel or to a server of the cluster."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from dws_core.plugin import BrokerError, BrokerMisconfigured, BrokerUnavailable
from dws_redis._connection import Commands, describe_server, open_connection
from dws_redis._format import Names
from dws_redis._settings import Address, Settings


async def locate(settings: Settings, names: Names, known: Iterable[Address] = ()) -> dict[Address, frozenset[int]]:
    """Return the servers and the partitions of each. Leave out partitions that no server holds at the moment.

    Args:
        settings: Addresses of the servers or sentinels in the URL.
        names: Names of the keys, which decide the slot of a partition in a cluster.
        known: Addresses of other servers of the cluster, used like those of the URL.

    Raises:
        BrokerUnavailable: No server or sentinel replies, or no sentinel monitors the service.
        BrokerMisconfigured: The URL is a cluster URL, but its servers are not a cluster.
    """
    everything = frozenset(range(names.layout.partitions))
    if settings.kind == "server":
        return {settings.hosts[0]: everything}
    if settings.kind == "sentinel":
        return {await _primary(settings): everything}
    return await _owners(settings, names, known)


async def _primary(settings: Settings) -> Address:
    """Query all sentinels at once and use the first address, so that an unavailable sentinel costs no time."""
    refusals: list[BrokerError] = []
    async with asyncio.TaskGroup() as group:
        queries = [group.create_task(_ask_sentinel(settings, sentinel)) for sentinel in settings.hosts]
        for completed in asyncio.as_completed(queries):
            found = await completed
            if isinstance(found, BrokerError):
                refusals.append(found)
                continue
            for query in queries:
                query.cancel()
            return found
    wrong = any(isinstance(refusal, BrokerMisconfigured) for refusal in refusals)
    reasons = "; ".join(refusal.message.rstrip(".") for refusal in refusals)
    raise (BrokerMisconfigured if wrong else BrokerUnavailable)(
        f"no sentinel of {settings.masked_url} names a working server for {settings.service!r}: {reasons}.",
        fix="check that the sentinels run, and check the service name, sentinel_username and sentinel_password (after "
        "a failure, the sentinels choose another server within seconds)",
    )


async def _ask_sentinel(settings: Settings, sentinel: Address) -> Address | BrokerError:
    """Return the address of the server that a sentinel names, or the error."""
    options = settings.options
    login = {"db": 0, "username": options.sentinel_username, "password": options.sentinel_password}
    url = f"{sentinel[0]}:{sentinel[1]}"  # the error lists all sentinels, so each is named by its address
    itself = replace(settings, kind="server", masked_url=url, login={**settings.login, **login})
    try:
        flat = await _call_once(itself, sentinel, "SENTINEL", "MASTER", settings.service)
    except BrokerError as error:
        return error
    state = dict(zip(flat[::2], flat[1::2], strict=True))
    if reason := _reason_to_distrust(state):
        return BrokerUnavailable(f"{url} {reason}.")
    return state[b"ip"].decode(), int(state[b"port"])


def _reason_to_distrust(state: dict[bytes, bytes]) -> str:
    """Return why a sentinel's reply is unusable, or an empty text."""
    flags = state[b"flags"].split(b",")
    if b"master" not in flags:
        return "reports that the server is not the primary"
    if b"s_down" in flags or b"o_down" in flags:
        return "reports that the server is down"
    if int(state[b"num-other-sentinels"]) + 1 < int(state[b"quorum"]):  # a restarted sentinel may name an old server
        return "has not found enough other sentinels for its quorum"
    return ""


async def _owners(settings: Settings, names: Names, known: Iterable[Address]) -> dict[Address, frozenset[int]]:
    servers = list(dict.fromkeys((*known, *settings.hosts)))
    random.shuffle(servers)  # avoids that an unavailable or outdated server comes first on every attempt
    failure: BrokerError | None = None
    for server in servers:
        try:
            ranges = await _slots(settings, server)
        except BrokerUnavailable as error:
            failure = error
            continue
        return _group_partitions(names, ranges)
    raise failure or BrokerUnavailable(f"{settings.masked_url} names no server.")


async def _slots(settings: Settings, server: Address) -> list[tuple[range, Address]]:
    """Return the slots of a cluster and their servers, as one server of the cluster reports them."""
    try:
        reply = await _call_once(settings, server, "CLUSTER", "SLOTS")
    except BrokerUnavailable as error:
        if "disabled" in str(error):
            raise BrokerMisconfigured(
                f"{settings.masked_url} is not a cluster.", fix="write redis:// instead"
            ) from error
        raise
    return [(range(first, last + 1), _address(owner, server)) for first, last, owner, *_ in reply]


async def _call_once(settings: Settings, server: Address, *command: str) -> Any:
    """Send one command over a new connection and return the reply, within the connect timeout."""
    where = describe_server(settings, server)
    try:
        async with asyncio.timeout(settings.options.connect_timeout_s):
            # The connection has no name, because a user of the sentinels may lack the right to set one.
            commands = Commands(await open_connection(settings, server, name=""), settings)
            try:
                return await commands.call(*command)
            except BrokerUnavailable as error:
                raise BrokerUnavailable(f"{where}: {error.message}") from error
            finally:
                await commands.close()
    except TimeoutError as error:
        raise BrokerUnavailable(f"{where} does not reply.", fix="check that it runs") from error


def _address(owner: list[Any], queried: Address) -> Address:
    """Return the address of a server. If the reply has no host name, it is the host of the queried server."""
    host, port = owner[0], owner[1]
    return (host.decode() if host else queried[0]), port


def _group_partitions(names: Names, ranges: list[tuple[range, Address]]) -> dict[Address, frozenset[int]]:
    found: dict[Address, set[int]] = {}
    for partition in range(names.layout.partitions):
        slot = names.slot(partition)
        for slots, owner in ranges:
            if slot in slots:
                found.setdefault(owner, set()).add(partition)
    return {owner: frozenset(partitions) for owner, partitions in found.items()}
