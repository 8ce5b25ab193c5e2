"""Users are disconnected on a node that Redis could not reach."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
from integration.test_users import Node
from services.redis import PrivateRedis
from support.relay import Relay
from support.servers import serve
from support.timeouts import HANG_S

from dws_core import create_broker

OPTIONS = "?probe_s=200ms&dead_s=1s"


@pytest.mark.anyio
async def test_revocation_is_carried_out_after_node_was_cut_off() -> None:
    """Within a second of the moment at which the node is live again. Others stay connected."""
    redis = PrivateRedis()
    redis.start()
    try:
        async with Relay.to(redis.port) as relay:
            here = Node(create_broker(redis.url + OPTIONS))
            there = Node(create_broker(f"redis://127.0.0.1:{relay.port}/0{OPTIONS}"))
            async with AsyncExitStack() as stack, asyncio.timeout(HANG_S):
                for node in (here, there):
                    node.server = await stack.enter_async_context(serve(node.app))
                ann = await stack.enter_async_context(there.client("ann"))
                bo = await stack.enter_async_context(there.client("bo"))
                relay.dropping_replies = True
                relay.cut()
                await here.manager.disconnect(user="ann")
                while there.manager.health().ready:
                    await bo.exchange(type="ping")
                assert (await ann.exchange(type="ping"))["type"] in ("pong", "gap")
                relay.dropping_replies = False
                relay.cut()
                while not there.manager.health().ready:
                    await bo.exchange(type="ping")
                live = time.monotonic()
                assert (await ann.wait_closed()).rcvd.code == 4500
                assert time.monotonic() - live < 1
                assert (await bo.exchange(type="ping"))["type"] in ("pong", "gap")
    finally:
        redis.remove()
