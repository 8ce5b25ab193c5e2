"""Publishes one message from a separate process, for the broker suite.

Usage: `python -m dws_core.testing.suites.publisher_process URL CHANNEL TEXT`.
"""

from __future__ import annotations

import asyncio
import sys

from dws_core import create_broker
from dws_core.plugin import LogBroker
from dws_core.testing.suites.peers import LogPeer, Peer, PlainPeer


async def main(url: str, channel: str, text: str) -> None:
    """Publish a text to a channel."""
    broker = create_broker(url)
    kind = LogPeer if isinstance(broker, LogBroker) else PlainPeer
    peer: Peer = kind(broker, channel, hang_limit_s=60.0)  # type: ignore[arg-type]  # each gets its own kind
    await peer.open()
    await peer.publish(text.encode())
    await peer.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
