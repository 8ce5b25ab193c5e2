"""The table "What survives" of `docs/plugins/redis.md`: the data kept by a restarted Redis, and the reported gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from services.redis import PrivateRedis
from support.broker_load import HISTORY, Node, two_nodes, wait_for_end

from dws_core.plugin import GapReason, Layout, ReadSpan, Receipt

LAYOUT = Layout(channel="durability", partitions=2)
COUNT: Final = 30

Server = Callable[..., PrivateRedis]


@pytest.fixture
def start() -> Iterator[Server]:
    """Start a Redis with these settings."""
    with ExitStack() as stack:

        def start(**settings: str) -> PrivateRedis:
            redis = PrivateRedis(**settings)
            stack.callback(redis.remove)
            redis.start()
            return redis

        yield start


APPENDS: Final = {
    "always": {"appendonly": "yes", "appendfsync": "always"},
    "everysec": {"appendonly": "yes", "appendfsync": "everysec"},
    "no file": {"appendonly": "no"},
}
"""The rows of the table."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The state of the acknowledged messages after a restart.

    Attributes:
        kept: Number of messages that Redis still has, counted from the first one.
        announced: Reasons of the gaps that the listening node received.
        said_later: Reason of the gap for a client that resumes from an old position. If None, there is no gap.
    """

    kept: int
    announced: set[GapReason]
    said_later: GapReason | None


WHOLE_AND_SILENT: Final = Outcome(kept=COUNT, announced=set(), said_later=None)
WHOLE_BUT_ANNOUNCED: Final = Outcome(kept=COUNT, announced={GapReason.EPOCH}, said_later=GapReason.EPOCH)
LOST_AND_ANNOUNCED: Final = Outcome(kept=0, announced={GapReason.EPOCH}, said_later=GapReason.EPOCH)


def payloads() -> list[bytes]:
    return [b"%d" % number for number in range(COUNT)]


async def after(
    url: str, restart: Callable[[], None], *, trust: str = "", halfway: Callable[[], None] | None = None
) -> Outcome:
    """Publish, restart Redis, wait until both nodes are live again, and return the outcome."""
    options = "?probe_s=200ms&dead_s=1s" + (f"&trust_restart={trust}" if trust else "")
    async with two_nodes(url + options, LAYOUT) as (sender, listener):
        first, *_ = [await publish(sender, payload) for payload in payloads()[: COUNT // 2]]
        if halfway is not None:
            halfway()
        *_, last = [await publish(sender, payload) for payload in payloads()[COUNT // 2 :]]
        await listener.until(lambda: len(listener.received[0]) == COUNT)
        restart()
        for node in (sender, listener):
            await node.until(lambda n=node: "degraded" in n.states and n.states[-1] == "live")  # type: ignore[misc]
        await wait_for_end(sender, listener)
        heard = [payload for _, payload in listener.received[0] if not payload.startswith(b"end")]
        assert heard == payloads(), "each once, in order"
        return Outcome(
            kept=await kept(sender), announced=set(listener.losses), said_later=await said(listener, first, last)
        )


async def publish(node: Node, payload: bytes) -> Receipt:
    return await node.broker.publish(0, "t", payload, history=HISTORY)


async def kept(node: Node) -> int:
    """Return the number of messages that can still be read. They must be the first ones, without a hole."""
    head = (await node.broker.heads([0]))[0]
    found = await node.broker.read(
        ReadSpan(
            partition=0, since=0, until=head.offset, epoch=head.epoch, topics=["t"], limit=1_000, max_bytes=100_000
        )
    )
    records = [record.payload for record in found.records]
    assert records == payloads()[: len(records)]
    return len(records)


async def said(node: Node, first: Receipt, last: Receipt) -> GapReason | None:
    """Return the gap reason for a client that has the first message and reads the others."""
    assert first.offset is not None
    assert last.offset is not None
    found = await node.broker.read(
        ReadSpan(
            partition=0,
            since=first.offset,
            until=last.offset,
            epoch=first.epoch,
            topics=["t"],
            limit=1_000,
            max_bytes=100_000,
        )
    )
    assert found.gap or [record.payload for record in found.records] == payloads()[1:]
    return found.gap


def crash(redis: PrivateRedis) -> Callable[[], None]:
    """Return a function that kills the process and starts it again."""

    def restart() -> None:
        written(redis)
        redis.kill()
        redis.start()

    return restart


def written(redis: PrivateRedis) -> None:
    """Wait until all writes are passed to the operating system. With `everysec`, Redis may delay writes."""
    while b"aof_enabled:1" in (info := redis.command("INFO", "persistence")) and b"aof_buffer_length:0\r" not in info:
        pass


TABLE: Final = [
    ("always", "", WHOLE_AND_SILENT),
    ("always", "always", WHOLE_AND_SILENT),
    ("always", "aof", WHOLE_AND_SILENT),
    ("always", "never", WHOLE_BUT_ANNOUNCED),
    ("everysec", "", WHOLE_BUT_ANNOUNCED),
    ("everysec", "always", WHOLE_BUT_ANNOUNCED),
    ("everysec", "aof", WHOLE_AND_SILENT),
    ("everysec", "never", WHOLE_BUT_ANNOUNCED),
    ("no file", "", LOST_AND_ANNOUNCED),
    ("no file", "always", LOST_AND_ANNOUNCED),
    ("no file", "aof", LOST_AND_ANNOUNCED),
    ("no file", "never", LOST_AND_ANNOUNCED),
]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("appends", "trust", "outcome"), TABLE, ids=[f"{appends}-{trust or 'default'}" for appends, trust, _ in TABLE]
)
async def test_killed_redis_keeps_data_and_reports_as_documented(
    start: Server, appends: str, trust: str, outcome: Outcome
) -> None:
    redis = start(**APPENDS[appends])
    assert await after(redis.url, crash(redis), trust=trust) == outcome


@pytest.mark.anyio
@pytest.mark.parametrize("trust", ["always", "aof", "never"])
async def test_restart_from_snapshot_is_never_trusted(start: Server, trust: str) -> None:
    """Redis cannot report whether the snapshot is complete, even if it is complete, as in this test."""
    redis = start(**APPENDS["no file"])

    def restart() -> None:
        assert redis.command("SAVE") == b"+OK\r\n"
        redis.kill()
        redis.start()

    assert await after(redis.url, restart, trust=trust) == WHOLE_BUT_ANNOUNCED


# -- power loss


def file_of(redis: PrivateRedis) -> Path:
    """Return the file with all writes since the start."""
    (found,) = (redis.folder / "appendonlydir").glob("*.incr.aof")
    return found


def power_loss(redis: PrivateRedis) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a function that stores the file size, and one that restarts Redis with the file cut to that size."""
    size = 0

    def note() -> None:
        nonlocal size
        written(redis)
        size = file_of(redis).stat().st_size

    def restart() -> None:
        written(redis)
        redis.kill()
        with file_of(redis).open("r+b") as file:
            assert file.seek(0, 2) > size, "there is something to lose"
            file.truncate(size + 1)  # inside the first lost command, because a disk does not write whole commands
        redis.start()

    return note, restart


@pytest.mark.anyio
@pytest.mark.parametrize("trust", ["", "always", "never"], ids=["default", "always", "never"])
async def test_power_loss_is_epoch_gap(start: Server, trust: str) -> None:
    redis = start(**APPENDS["everysec"])
    note, restart = power_loss(redis)
    outcome = await after(redis.url, restart, trust=trust, halfway=note)
    assert outcome == Outcome(kept=COUNT // 2, announced={GapReason.EPOCH}, said_later=GapReason.EPOCH)


@pytest.mark.anyio
async def test_loss_that_no_surviving_node_saw_is_silent(start: Server) -> None:
    """Why `everysec` is always announced: the counterexample of `docs/explanation/decisions.md`.

    A trusted restart stands for a comparison that finds no difference, because the other node has seen no lost message.
    """
    redis = start(**APPENDS["everysec"])
    note, restart = power_loss(redis)
    url = redis.url + "?probe_s=200ms&dead_s=1s&trust_restart=aof"
    failing, surviving = Node(url, LAYOUT, 1), Node(url, LAYOUT, 2)
    await failing.start()
    await publish(failing, b"kept")
    note()
    lost = [await publish(failing, b"lost %d" % number) for number in range(3)]
    await failing.broker.stop(drain_s=0.1)
    restart()
    await surviving.start()
    new = [await publish(surviving, b"new %d" % number) for number in range(5)]
    assert [(receipt.epoch, receipt.offset) for receipt in new[:3]] == [(r.epoch, r.offset) for r in lost]
    span = ReadSpan(
        partition=0,
        since=lost[-1].offset or 0,
        until=new[-1].offset or 0,
        epoch=lost[-1].epoch,
        topics=["t"],
        limit=1_000,
        max_bytes=100_000,
    )
    found = await surviving.broker.read(span)
    await surviving.broker.stop(drain_s=0.1)
    assert (found.gap, [record.payload for record in found.records]) == (None, [b"new 3", b"new 4"])


# -- settings that cannot be read


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("trust", "outcome"), [("always", WHOLE_BUT_ANNOUNCED), ("aof", WHOLE_AND_SILENT)], ids=["always", "aof"]
)
async def test_unreadable_settings_mean_no_sync_per_write(start: Server, trust: str, outcome: Outcome) -> None:
    redis = start(**APPENDS["always"], user="ann on >hush allkeys allchannels +@all -config")
    url = redis.url.replace("//", "//ann:hush@")
    assert await after(url, crash(redis), trust=trust) == outcome
