"""The publishing methods of a client: each publish is repeated until it is stored, refused, or the time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

from dws_core._errors import PublishOutcomeUnknown
from dws_core._log.backoff import Backoff
from dws_core._wire.client_errors import Refused
from dws_core._wire.message import JSON
from dws_core.client._line import Entry, Line
from dws_core.client._state import ClientState

_FIRST_S: Final = 0.1
_MAX_S: Final = 2.0

_NO_ECHO: Final = {"echo": False}


class Recalled(Refused):
    """A request is to be repeated later, because an earlier one must be stored first."""

    def __init__(self) -> None:
        super().__init__("recalled", "an earlier message must be stored first", temporary=True)


class Ask(Protocol):
    """Sends a request, on further connections again, and returns the node's reply."""

    async def __call__(self, members: Mapping[str, Any], recall: asyncio.Future[None]) -> Mapping[str, Any]:
        """Send in the same step of the event loop.

        Raises:
            Recalled: The future `recall` completed before the reply. The request is not repeated.
        """


class Publishing:
    """Publishes of one client.

    Args:
        ask: Sends a request and returns the node's reply.
        window: Maximum number of unanswered publishes. Further publishes wait.
    """

    def __init__(self, ask: Ask, window: int) -> None:
        self._ask = ask
        self._window = asyncio.Semaphore(window)
        self._lines: dict[str, Line] = {}

    async def publish(self, members: Mapping[str, Any], timeout_s: float) -> str | None:
        """Publish, and retry temporary refusals. Return the position of the message, or None without history.

        Raises:
            Refused: The message is not allowed or malformed.
            PublishOutcomeUnknown: There was no reply in time. The message may be stored.
        """
        to = members.get("topic") or members.get("conn_id") or members.get("to")
        line = self._line(name := f"{members['type']} {to}")
        entry = line.enter()
        try:
            async with asyncio.timeout(timeout_s), self._window:
                return await self._repeat(members, line, entry)
        except TimeoutError as error:
            raise PublishOutcomeUnknown(str(members.get("topic", members["type"]))) from error
        finally:
            line.leave(entry)
            if not line:
                self._lines.pop(name, None)

    def _line(self, name: str) -> Line:
        if name not in self._lines:
            self._lines[name] = Line(Backoff(first_s=_FIRST_S, max_s=_MAX_S))
        return self._lines[name]

    async def _repeat(self, members: Mapping[str, Any], line: Line, entry: Entry) -> str | None:
        while True:
            recall = await line.turn(entry)
            try:
                position: str | None = (await self._ask(members, recall)).get("pos")
            except Recalled:
                continue
            except Refused as error:
                if not error.temporary:
                    raise
                line.refused(entry, error.retry_in_s or 0.0)
            else:
                line.stored()
                return position


class PublishMethods:
    """The publishing methods of `Client`."""

    _publishing: Publishing
    _state: ClientState

    async def publish(
        self, topic: str, data: JSON, *, key: str | None = None, echo: bool = True, timeout_s: float = 30.0
    ) -> str | None:
        """Publish to a topic. Return when the broker has stored the message.

        Args:
            topic: Topic without wildcards.
            data: Any JSON value.
            key: Idempotency key. Messages with the same topic and key within 60 s are delivered once. If None, a new
                key is used.
            echo: Whether the message is also delivered to this client, if one of its filters matches.
            timeout_s: Timeout in seconds. Until then, the client retries, on new connections if necessary.

        Returns:
            The position of the message, or None if the topic has no history.

        Raises:
            Refused: The message is not allowed or malformed. Temporary refusals are retried and not raised.
            PublishOutcomeUnknown: There was no reply in time. The message may be stored.
            ConnectionClosed: The client is closed.
        """
        members = {"type": "send", "topic": topic, "data": data, **({} if echo else _NO_ECHO)}
        return await self._publish(members, key, timeout_s)

    async def broadcast(
        self, data: JSON, *, key: str | None = None, echo: bool = True, timeout_s: float = 30.0
    ) -> str | None:
        """Publish to every connection of the channel. Everything else is as in `publish`."""
        return await self._publish({"type": "broadcast", "data": data, **({} if echo else _NO_ECHO)}, key, timeout_s)

    async def send_to(
        self, conn_id: str | Collection[str], data: JSON, *, key: str | None = None, timeout_s: float = 30.0
    ) -> str | None:
        """Publish to the connections with one or several ids. Everything else is as in `publish`."""
        ids = conn_id if isinstance(conn_id, str) else list(conn_id)
        return await self._publish({"type": "send_by_conn_id", "conn_id": ids, "data": data}, key, timeout_s)

    async def _publish(self, members: Mapping[str, Any], key: str | None, timeout_s: float) -> str | None:
        return await self._publishing.publish({**members, "key": key or self._state.new_key()}, timeout_s)
