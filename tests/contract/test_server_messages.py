"""The messages of a node: the code, the protocol page and the Python client name the same types and members."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dws_core._wire import server_messages
from dws_core._wire.client_errors import ClientError
from dws_core._wire.cursor import Position
from dws_core._wire.node_topics import conn_topic, user_topic
from dws_core.client._state import ClientState

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/protocol.md").read_text()
SECTION = PAGE.partition("## Messages from the node")[2].partition("\n## ")[0]
CURSOR = {0: Position(0, "e", 7)}
ERROR = ClientError(code="internal", message="failed")

EXAMPLES: Mapping[str, list[dict[str, Any]]] = {
    "message": [
        server_messages.message("chat", "0:e:1", "ann"),
        server_messages.message(conn_topic("c"), None),
        server_messages.message(user_topic("ann"), None),
        server_messages.message("$all", None),
        server_messages.message("chat", "0:e:1", replay=1),
    ],
    "request": [server_messages.request("r", 5.0)],
    "connected": [
        server_messages.connected(1, conn_id="c", ping_s=20.0, cursor=CURSOR, recovered=True),
        server_messages.connected(None, conn_id="c", ping_s=20.0, cursor=CURSOR, recovered=None),
    ],
    "ack": [
        server_messages.ack(1),
        server_messages.ack(1, pos="0:e:1", cursor=CURSOR, recovered=False, expires_in_s=60.0),
    ],
    "history": [
        server_messages.history(
            1, topic="t", messages=[(1, "0:e:1", None), (2, "0:e:2", "ann")], cursor="0:e:1", skipped=1
        ),
        server_messages.history(None, topic="t", messages=[], cursor="0:e:1"),
    ],
    "error": [
        server_messages.error(ERROR),
        server_messages.error(ClientError(code="c", message="m", retry_in_s=1.0), 1),
    ],
    "pong": [server_messages.pong(None), server_messages.pong(1)],
    "set_conn_id": [server_messages.set_conn_id("c")],
    "gap": [server_messages.gap(["t"], "epoch", CURSOR), server_messages.gap(["t"], "epoch", CURSOR, replay=1)],
    "pos": [server_messages.pos(CURSOR)],
    "expiring": [server_messages.expiring(30.0)],
    "unsubscribed": [server_messages.unsubscribed("t", "forbidden")],
    "replayed": [server_messages.replayed(1, CURSOR)],
}
"""For each type, messages that together have every member, and of which one has only the required members."""


def _documented() -> dict[str, tuple[set[str], set[str]]]:
    """Return the required and the optional members of each type of the page's table."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", SECTION, re.MULTILINE)
    members = {type_: re.findall(r"`(\w+\??)`", cell) for type_, cell in rows if type_ != "type"}
    return {
        type_: ({m for m in names if not m.endswith("?")}, {m[:-1] for m in names if m.endswith("?")})
        for type_, names in members.items()
    }


def _functions() -> set[str]:
    return {
        name
        for name, value in vars(server_messages).items()
        if inspect.isfunction(value) and value.__module__ == server_messages.__name__ and not name.startswith("_")
    }


def test_one_function_per_documented_type() -> None:
    assert _functions() == set(_documented()) == set(EXAMPLES)


@pytest.mark.parametrize("type_", EXAMPLES)
def test_members_match_the_protocol_page(type_: str) -> None:
    required, optional = _documented()[type_]
    appended = {"data"} if type_ in ("message", "request") else set()
    seen = [set(message) - {"type"} | appended for message in EXAMPLES[type_]]
    assert all(message["type"] == type_ for message in EXAMPLES[type_])
    assert set.union(*seen) == required | optional
    assert set.intersection(*seen) == required


def test_client_reads_only_documented_or_planned_types() -> None:
    planned = set(re.findall(r"`(\w+)`", SECTION.partition("Planned:")[2].partition("from the node")[0]))
    assert planned == {"reconnect"}
    assert set(ClientState._READERS) <= set(_documented()) | planned


def test_no_other_module_of_the_node_writes_a_message() -> None:
    """A dict display with the key `type` outside server_messages would be a second home. ASGI events are no messages."""
    for path in (ROOT / "dws_core/_node").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict) and path.name != "plain_broker.py":
                pairs = zip(node.keys, node.values, strict=True)
                members = {key.value: ast.unparse(value) for key, value in pairs if isinstance(key, ast.Constant)}
                assert members.get("type", "'websocket.").startswith("'websocket."), f"{path}:{node.lineno}"
