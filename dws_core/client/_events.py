"""What a client learns from the frames of its node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from dws_core._errors import DWSError
from dws_core._wire.client_errors import Refused
from dws_core._wire.message import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message that has arrived.

    Attributes:
        data: The payload, any JSON value.
        topic: Topic to which it was published. None for a broadcast, a direct message, or a message to a user.
        conn_id: Connection id to which a direct message was sent. None for any other message.
        user: Id of the user to whom the message was sent. None for any other message.
        position: Position in its log. None if its topic has no history.
        sender: Id of the client that published it, if the node stamps senders.
    """

    data: JSON
    topic: str | None = None
    conn_id: str | None = None
    user: str | None = None
    position: str | None = None
    sender: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A report that messages may have been lost. Reload your state.

    Attributes:
        filters: The client's filters whose messages may be lost.
        reason: Reason sent by the node: `epoch`, `trimmed`, `ahead`, `layout-changed`, `too-many`, `unsupported`,
            `interrupted` or `unreadable`. Or `overflow` if this client did not process its messages fast enough.
    """

    filters: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The node has accepted the first message.

    Attributes:
        conn_id: Id of this connection. None if the node does not send it.
        recovered: Whether all missed messages follow. None if there was no cursor to resume from.
    """

    conn_id: str | None
    recovered: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """The node has accepted a filter. `subscription` is the number of the subscription with a past, or None."""

    filter: str
    subscription: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSubscribed:
    """The node has refused or removed a filter. `subscription` is the number of the one with a past, or None."""

    filter: str
    error: DWSError
    subscription: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A message of the past of one subscription."""

    subscription: int
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEnded:
    """A subscription has received its past. From now on, it receives every message of its filter."""

    subscription: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponed:
    """The node has refused a subscription with a past for the moment. Try again, at the earliest after `retry_in_s`."""

    subscription: int
    retry_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The node has carried out a request."""

    id: int
    frame: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A request has failed."""

    id: int
    error: DWSError


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """The application of the node asks for a reply.

    Attributes:
        data: The data of the request.
        reply_to: Text that the reply repeats as `to`.
        timeout_s: Time for the reply, in seconds.
    """

    data: JSON
    reply_to: str
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloRefused:
    """The node has refused the first message."""

    error: Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """The node asks the client to reconnect, to another node, after `in_s` seconds."""

    in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiring:
    """The token expires in `in_s` seconds."""

    in_s: float


Event: TypeAlias = (
    Message
    | Past
    | PastEnded
    | Gap
    | Connected
    | Subscribed
    | NotSubscribed
    | Postponed
    | Answered
    | Failed
    | Requested
    | HelloRefused
    | Leave
    | Expiring
)
