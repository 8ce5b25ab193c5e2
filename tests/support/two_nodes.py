"""Two nodes of one chat in the test's process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from support.apps import chat_app
from support.brokers import PlainBroker
from support.servers import Server, serve

from dws_core import WebSocketManager

MakeBroker = Callable[[], dict[str, Any]]
"""Returns the arguments for the broker of one node."""

BROKERS = pytest.mark.parametrize(
    "make_broker",
    [lambda: {"broker_url": "memory://two-nodes"}, lambda: {"broker": PlainBroker("two-nodes")}],
    ids=["log", "plain"],
)
"""Parameters of a test for nodes on a log broker and on a plain broker."""


class ServedNode(NamedTuple):
    """A node and its server."""

    manager: WebSocketManager
    server: Server

    @property
    def url(self) -> str:
        return self.server.url


@asynccontextmanager
async def serve_two_nodes(broker: str | MakeBroker, **arguments: Any) -> AsyncIterator[tuple[ServedNode, ServedNode]]:
    """Serve two nodes during the block.

    Args:
        broker: URL of the broker, or a function that returns the arguments for the broker of a node.
        arguments: Further arguments of both managers.
    """
    first, second = (
        WebSocketManager("chat", **({"broker_url": broker} if isinstance(broker, str) else broker()), **arguments)
        for _ in range(2)
    )
    async with serve(chat_app(first)) as near, serve(chat_app(second)) as far:
        yield ServedNode(first, near), ServedNode(second, far)
