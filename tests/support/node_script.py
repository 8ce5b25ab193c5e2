"""One node in a separate process: `python node_script.py FD URL` serves on an inherited listening socket.

For tests only. `--die-after N` kills the process after N stored publishes, before the last reply is sent.
`--patch NAME` breaks a rule, so that a test can show that it detects this. Only `read-all-from-the-broker` breaks none.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Hashable
from typing import Any

import uvicorn
from dws_sqlite._broker import SQLiteBroker
from support.apps import HISTORY, chat_app
from uvicorn.main import STARTUP_FAILURE

from dws_core import BrokerURL, Limits, Principal, WebSocketManager, create_broker
from dws_core._log.cache import LogCache
from dws_core._node.publisher import Publisher
from dws_core._node.recovery.attachments import Attachments
from dws_core._wire import server_messages


def forget_the_past() -> None:
    """Answer every recovery as if nothing was missed."""
    LogCache.missed = lambda self, since, topics: ()  # type: ignore[method-assign]


def read_all_from_the_broker() -> None:
    """Disable the node's cache. This is correct but slower, so that more events happen during a read."""
    LogCache.missed = lambda self, since, topics: None  # type: ignore[method-assign]


def ignore_keys() -> None:
    """Store a repeated publish as a new message."""
    store = Publisher._store

    def without_key(self: Publisher, topic: str, payload: bytes, key: str | None, order: Hashable | None = None) -> Any:
        return store(self, topic, payload, None, order)

    Publisher._store = without_key  # type: ignore[method-assign]


def let_live_messages_overtake() -> None:
    """Deliver live messages while the replay is still being sent."""
    Attachments.hold_back = lambda self, receivers, partition, epoch, record: receivers  # type: ignore[method-assign]


PATCHES: dict[str, Callable[[], None]] = {
    "read-all-from-the-broker": read_all_from_the_broker,
    "forget-the-past": forget_the_past,
    "ignore-keys": ignore_keys,
    "let-live-messages-overtake": let_live_messages_overtake,
}


def die_after(publishes: int) -> None:
    """Kill this process at the worst moment: a publish is stored, but its publisher receives no reply."""
    ack, stored = server_messages.ack, 0

    def counting(request_id: str | int | None, *, pos: str | None = None, **members: Any) -> dict[str, Any]:
        nonlocal stored
        stored += pos is not None
        if stored == publishes:
            os.kill(os.getpid(), signal.SIGKILL)
        return ack(request_id, pos=pos, **members)

    server_messages.ack = counting


def expiring_after(token_s: float) -> Callable[[str], Principal]:
    """Return a verifier of tokens, which expire some seconds after each check."""

    def verify(token: str) -> Principal:
        return Principal(id=token, expires_at=time.time() + token_s)

    return verify


class Server(uvicorn.Server):
    """A server that reports when it is ready."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        sys.stdout.write("ready\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fd", type=int)
    parser.add_argument("url")
    parser.add_argument("--patch", action="append", choices=PATCHES, default=[])
    parser.add_argument("--die-after", type=int, default=0)
    parser.add_argument("--patience-s", type=float, default=0.0)
    parser.add_argument("--token-s", type=float, default=0.0, help="lifetime of tokens, which clients need then")
    arguments = parser.parse_args()
    for name in arguments.patch:
        PATCHES[name]()
    if arguments.die_after:
        die_after(arguments.die_after)
    url = BrokerURL.parse(arguments.url)  # the example is not always installed, so its plugin may be missing
    broker = SQLiteBroker.from_url(url) if url.scheme == "sqlite" else create_broker(arguments.url)
    limits, patience_s = Limits(messages_per_s=None), arguments.patience_s
    manager = WebSocketManager(
        "chat",
        broker=broker,
        history=HISTORY,
        limits=limits,
        startup_patience_s=patience_s,
        verify_token=expiring_after(arguments.token_s) if arguments.token_s else None,
    )
    config = uvicorn.Config(chat_app(manager), ws="dws_core.server:WebSocketProtocol", log_level="warning")
    server = Server(config)
    server.run(sockets=[socket.socket(fileno=arguments.fd)])
    if not server.started:
        sys.exit(STARTUP_FAILURE)  # like the command `uvicorn`


if __name__ == "__main__":
    main()
