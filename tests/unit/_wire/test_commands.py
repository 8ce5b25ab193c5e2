"""Commands to all nodes, as data of records."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dws_core import ConfigurationError, InvalidMessage
from dws_core._wire.commands import Command, Disconnect, Unsubscribe, command_data, read_command

COMMANDS: list[Command] = [
    Disconnect(user="ann"),
    Disconnect(conn_id="a/b", code=4001, reason="bye"),
    Unsubscribe(user="ann", topic="chat/+"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=repr)
def test_command_survives_the_log(command: Command) -> None:
    assert read_command(json.loads(json.dumps(command_data(command)))) == command


def test_members_of_later_versions_are_ignored() -> None:
    assert read_command({"command": "disconnect", "user": "ann", "later": [1]}) == Disconnect(user="ann")


@pytest.mark.parametrize(
    "data",
    [
        None,
        7,
        [],
        {},
        {"command": "reboot"},
        {"command": ["disconnect"]},
        {"command": "disconnect"},
        {"command": "disconnect", "user": "ann", "conn_id": "a"},
        {"command": "disconnect", "user": 7},
        {"command": "disconnect", "user": "ann", "code": 1005},
        {"command": "disconnect", "user": "ann", "code": "4500"},
        {"command": "disconnect", "user": "ann", "code": True},
        {"command": "unsubscribe", "user": "ann"},
        {"command": "unsubscribe", "topic": "t"},
    ],
)
def test_malformed_command_is_rejected(data: Any) -> None:
    with pytest.raises(InvalidMessage):
        read_command(data)


@pytest.mark.parametrize("members", [{}, {"user": "a", "conn_id": "b"}, {"user": "a", "code": 99}])
def test_wrong_arguments_are_refused_at_the_call(members: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Disconnect(**members)
