"""Messages of other programs on a channel of Redis, and data that no codec can read."""

from __future__ import annotations

import secrets

import pytest
from dws_redis import RedisBroker
from services.redis import PrivateRedis
from support.broker_load import IgnoringSink
from support.hostile_log import check_hostile_log

from dws_core.plugin import BrokerURL, History, Layout

PUSHES = (
    b"", b"hello", b"- 0 0 0 00\n- 0 1 0 0 -14\n", b"- 0 0 0 00\n- 0 1 1 9 0\nt", b"e 9 1 1 00\n", b"x 1 999999999999 1 00\n",
    b"- 0 0 1 0011223344556677\n- 0 1 1 6 0\ntpoison", b"\n" * 100_000,
)  # fmt: skip
PAYLOADS = b"", b"poison", b"2 json\n0", b"1 nobody\n0", b"1 msgpack\n\xcf\xff", b"\xff" * 100_000


@pytest.mark.anyio
@pytest.mark.parametrize("stored", [False, True], ids=["pushes", "payloads"])
async def test_hostile_records_are_gaps(redis: PrivateRedis, stored: bool, caplog: pytest.LogCaptureFixture) -> None:
    channel, url = f"hostile-{secrets.token_hex(4)}", BrokerURL.parse(redis.url + "?partitions=1")
    stranger = RedisBroker.from_url(url)
    await stranger.start(node=b"stranger", layout=Layout(channel=channel), sink=IgnoringSink())  # type: ignore[arg-type]

    async def inject(record: bytes) -> None:
        if stored:
            await stranger.publish(0, "t", record, history=History())
        else:
            redis.command("PUBLISH", f"dws:{{0:{channel}}}:c", record.decode())

    try:
        records = PAYLOADS if stored else PUSHES
        await check_hostile_log(lambda: RedisBroker.from_url(url), channel, inject, records, caplog)
    finally:
        await stranger.stop()
