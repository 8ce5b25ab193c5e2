"""Which server holds the log of which partition: a sentinel or a server of a cluster says it in one answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

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
    """Ask all sentinels at once, and go by the first that knows the server: one that is away costs no time."""
    refusals: list[BrokerError] = []
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_named(settings, sentinel)) for sentinel in settings.hosts]
        for answer in asyncio.as_completed(asked):
            found = await answer
            if isinstance(found, BrokerError):
                refusals.append(found)
                continue
            for task in asked:
                task.cancel()
            return found
    wrong = any(isinstance(refusal, BrokerMisconfigured) for refusal in refusals)
    reasons = "; ".join(refusal.message.rstrip(".") for refusal in refusals)
    raise (BrokerMisconfigured if wrong else BrokerUnavailable)(
        f"no sentinel of {settings.shown} names a server {settings.service!r} that works: {reasons}.",
        fix="check that the sentinels run, the service's name, sentinel_username and sentinel_password; "
        "after a failure they choose another server within seconds",
    )


async def _named(settings: Settings, sentinel: Address) -> Address | BrokerError:
    """Return the server that a sentinel names, or why there is none."""
    options = settings.options
    login = {"db": 0, "username": options.sentinel_username, "password": options.sentinel_password}
    itself = replace(
        settings, kind="server", shown=f"{sentinel[0]}:{sentinel[1]}", login={**settings.login, **login}
    )  # in errors it stands beside the others, behind the URL
    try:
        flat = await _ask(itself, sentinel, "SENTINEL", "MASTER", settings.service)
    except BrokerError as error:
        return error
    state = dict(zip(flat[::2], flat[1::2], strict=True))
    if doubt := _doubt(state):
        return BrokerUnavailable(f"{itself.shown} {doubt}.")
    return state[b"ip"].decode(), int(state[b"port"])


def _doubt(state: dict[bytes, bytes]) -> str:
    """Say why a sentinel's word is not to be taken; empty: it is."""
    flags = state[b"flags"].split(b",")
    if b"master" not in flags:
        return "does not take it for the primary"
    if b"s_down" in flags or b"o_down" in flags:
        return "says that it is down"
    if int(state[b"num-other-sentinels"]) + 1 < int(state[b"quorum"]):  # it began anew, and may name one of long ago
        return "does not know enough other sentinels for its quorum"
    return ""


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
    try:
        answer = await _ask(settings, server, "CLUSTER", "SLOTS")
    except BrokerUnavailable as error:
        if "disabled" in str(error):
            raise BrokerMisconfigured(f"{settings.shown} is no cluster.", fix="write redis:// instead") from error
        raise
    return [(range(first, last + 1), _address(owner, server)) for first, last, owner, *_ in answer]


async def _ask(settings: Settings, server: Address, *command: str) -> Any:
    """Ask one thing over a connection of its own, for at most as long as an attempt to connect may take."""
    where = show(settings, server)
    try:
        async with asyncio.timeout(settings.options.connect_timeout_s):
            # without a name: to give one is a right, which a user of the sentinels may not have
            commands = Commands(await open_connection(settings, server, name=""), settings)
            try:
                return await commands.call(*command)
            except BrokerUnavailable as error:
                raise BrokerUnavailable(f"{where}: {error.message}") from error
            finally:
                await commands.close()
    except TimeoutError as error:
        raise BrokerUnavailable(f"{where} does not answer.", fix="check that it runs") from error


def _address(owner: list[Any], asked: Address) -> Address:
    """Return where a server is; one without a name is known by the name under which it was asked."""
    host, port = owner[0], owner[1]
    return (host.decode() if host else asked[0]), port


def _share(names: Names, ranges: list[tuple[range, Address]]) -> dict[Address, frozenset[int]]:
    found: dict[Address, set[int]] = {}
    for partition in range(names.layout.partitions):
        slot = names.slot(partition)
        for slots, owner in ranges:
            if slot in slots:
                found.setdefault(owner, set()).add(partition)
    return {owner: frozenset(partitions) for owner, partitions in found.items()}
