"""Commands of applications to all nodes of a channel: the data of the records on the topic `$commands`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, TypeAlias

from dws_core._errors import ConfigurationError, InvalidMessage
from dws_core._wire.close_codes import CloseCode, check_code
from dws_core._wire.message import JSON

_NAME: Final = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """Close the connections of a user, or those with a connection id.

    Attributes:
        user: Id of the user. If None, `conn_id` is set.
        conn_id: Connection id. If None, `user` is set.
        code: Close code.
        reason: Reason of the close frame. If None, the standard text of the code.
    """

    user: str | None = None
    conn_id: str | None = None
    code: int = CloseCode.DISCONNECTED
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.user is None) == (self.conn_id is None):
            raise ConfigurationError(
                "disconnect() needs either a user or a conn_id.",
                fix="pass disconnect(user=...) or disconnect(conn_id=...)",
            )
        check_code(self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    """Remove a filter from all connections of a user.

    Attributes:
        user: Id of the user.
        topic: The filter.
    """

    user: str
    topic: str


Command: TypeAlias = Disconnect | Unsubscribe

_COMMANDS: Final[Mapping[str, type[Command]]] = {"disconnect": Disconnect, "unsubscribe": Unsubscribe}
_TYPES: Final = {"code": int}


def command_data(command: Command) -> JSON:
    """Return a command as the data of a record."""
    name = next(name for name, cls in _COMMANDS.items() if isinstance(command, cls))
    return {_NAME: name, **{member: value for member, value in asdict(command).items() if value is not None}}


def read_command(data: JSON) -> Command:
    """Return the command of a record. Members that this version does not have are ignored.

    Raises:
        InvalidMessage: The data is no command of this version.
    """
    name = data.get(_NAME) if isinstance(data, Mapping) else None
    cls = _COMMANDS.get(name) if isinstance(name, str) else None
    if cls is None:
        raise InvalidMessage("the record has no command of this version.")
    members = {member: data[member] for member in cls.__dataclass_fields__ if member in data}
    for member, value in members.items():
        if not isinstance(value, _TYPES.get(member, str)):
            raise InvalidMessage(f"member {member!r} of a command has the wrong type.")
    try:
        return cls(**members)
    except (TypeError, ConfigurationError) as error:
        raise InvalidMessage(f"the command {name!r} is incomplete or invalid.") from error
