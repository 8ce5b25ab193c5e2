"""`Client`: the I/O around `ClientState`. One task connects, reads, and connects again."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from websockets.exceptions import WebSocketException as SocketError

from dws_core._errors import ConnectionClosed, DWSError, PublishOutcomeUnknown
from dws_core._log.backoff import Backoff
from dws_core._tasks import Tasks
from dws_core._wire.client_errors import Refused
from dws_core._wire.close_codes import CloseCode
from dws_core._wire.codecs import Codec
from dws_core._wire.message import JSON
from dws_core.client._announcer import Announcer, OnGap
from dws_core.client._endpoint import Ending, Endpoint, Token, codec_of, ending_of
from dws_core.client._link import Link
from dws_core.client._state import (
    Answered,
    ClientState,
    Connected,
    Event,
    Expiring,
    Failed,
    Gap,
    HelloRefused,
    Leave,
    Message,
    NotSubscribed,
    Subscribed,
)
from dws_core.client._subscription import Subscription, Subscriptions

if TYPE_CHECKING:
    from ssl import SSLContext

logger = logging.getLogger("dws.client")

_STEADY_S: Final = 5.0
"""A connection that lived so long begins a new series of attempts when it ends."""


class Client:
    """A connection to a node that mends itself: it reconnects and resumes, and says when something was lost.

    ```python
    async with Client("ws://localhost:8000/ws/me", on_gap=print) as client:
        async with client.subscribe("chat/#") as messages:
            await client.publish("chat/lobby", {"text": "hello"})
            async for message in messages:
                print(message.topic, message.data)
    ```

    Each message comes once, in the order of its topic, over reconnects and nodes, as long as the topic's history reaches
    back; else `on_gap` is called. A publish returns when the broker has the message; a repeat after a lost connection is
    harmless, because it carries the same key.

    Args:
        url: Where the node is, `ws://` or `wss://`.
        token: Bearer token, or a function that returns one, plain or async; it is asked for each connection.
        codec: `json`, `msgpack`, or a codec object.
        on_gap: Called with a `Gap` when messages may have been lost; plain or async. None: it is logged.
        cursor: Where an earlier client left off (its `cursor`). Subscribe before the client is entered to resume there.
        headers: Further header fields of the handshake.
        ssl: TLS settings for `wss://`; None: the system's.
        proxy: Whether the proxies of the environment are used.
        queue_messages: Messages that may wait in a subscription before the client stops reading: the node then decides,
            by its slow-consumer policy. While an answer is awaited it goes on reading, up to ten times as many.
        window: Publishes that may be unanswered; others wait.
        connect_timeout_s: Seconds for one handshake, and for the first connection as a whole.
        backoff: Delays between attempts; None: full jitter from 0.5 s up to 30 s.

    Raises:
        ConfigurationError: The codec is not known.
        InvalidMessage: The cursor is malformed.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        codec: str | Codec = "json",
        on_gap: OnGap | None = None,
        cursor: str | None = None,
        headers: Mapping[str, str] | None = None,
        ssl: SSLContext | None = None,
        proxy: bool = True,
        queue_messages: int = 1_000,
        window: int = 100,
        connect_timeout_s: float = 10.0,
        backoff: Backoff | None = None,
    ) -> None:
        self._endpoint = Endpoint(
            url=url,
            codec=codec_of(codec),
            token=token,
            headers=headers or {},
            ssl=ssl,
            proxy=proxy,
            timeout_s=connect_timeout_s,
        )
        self._state = ClientState(key_prefix=secrets.token_urlsafe(12) + "-", cursor=cursor)
        self._connect_timeout_s = connect_timeout_s
        self._window = asyncio.Semaphore(window)
        self._backoff = backoff or Backoff(first_s=0.5, max_s=30.0)
        self._tasks = Tasks()
        self._announcer = Announcer(on_gap, self._tasks)
        self._changed = asyncio.Event()
        self._subscriptions = Subscriptions(
            queue_messages=queue_messages, on_change=self._changed.set, on_close=self._on_unsubscribed
        )
        self._answers: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._link: Link | None = None
        self._conn_id: str | None = None
        self._online = asyncio.Event()
        self._end: DWSError | None = None

    # -- life cycle

    @property
    def conn_id(self) -> str | None:
        """The connection id, which direct messages are sent to; None: not known."""
        return self._conn_id

    @property
    def connected(self) -> bool:
        """Whether the node is reached at the moment."""
        return self._state.online

    @property
    def cursor(self) -> str | None:
        """Where this client stands: give it to a later `Client` to resume. None: nowhere yet.

        It counts what has arrived, also what still waits in a subscription.
        """
        return self._state.cursor

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            AuthenticationFailed: The node refuses the token or the origin.
            ConnectionClosed: No node could be reached in `connect_timeout_s`, or it closed for good.
            Refused: The node does not allow a filter that was subscribed before.
        """
        self._tasks.spawn(self._run(), name="dws client")
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._online.wait()
        except BaseException as error:
            await self.aclose()
            if isinstance(error, TimeoutError):
                raise ConnectionClosed(1006, f"no connection in {self._connect_timeout_s} s") from error
            raise
        if self._end is not None:
            await self._tasks.stop()
            raise self._end
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close for good: iterations end, what awaits an answer fails. Closing again does nothing."""
        self._stop(ConnectionClosed(CloseCode.NORMAL, "closed by the application"))
        self._subscriptions.close()
        await self._tasks.stop()

    # -- receiving

    def subscribe(self, filter_: str) -> Subscription:
        """Receive what is published to matching topics: `async with client.subscribe("chat/#") as messages`.

        Works at once, connected or not; see `Subscription` for when it is in force.

        Raises:
            InvalidFilter: It breaks a rule of MQTT 5.0 §4.7.
            ConnectionClosed: The client is closed.
        """
        self._check_open()
        subscription = self._subscriptions.add(filter_)
        message = self._state.subscribe(filter_)
        if message is not None:
            self._send_soon(message)
        elif filter_ in self._state.in_force:
            subscription.in_force()
        return subscription

    def inbox(self) -> Subscription:
        """Receive broadcasts and direct messages; without an inbox they are dropped.

        Raises:
            ConnectionClosed: The client is closed.
        """
        self._check_open()
        subscription = self._subscriptions.add(None)
        subscription.in_force()
        return subscription

    async def history(self, topic: str, limit: int = 100) -> list[Message]:
        """Return the last messages of one topic, oldest first.

        Raises:
            Refused: The node does not allow it, or has no history.
            ConnectionClosed: The client is closed.
        """
        answer = await self._ask({"type": "history", "topic": topic, "limit": limit})
        return [Message(data=found["data"], topic=topic, position=found.get("pos")) for found in answer["messages"]]

    # -- sending

    async def publish(self, topic: str, data: JSON, *, key: str | None = None, timeout_s: float = 30.0) -> str | None:
        """Publish to a topic; return its position when the broker has it, None where there is no history.

        Args:
            topic: No wildcards.
            data: Any JSON value.
            key: A repeat of (topic, key) within 60 s is delivered once; None: a key of its own.
            timeout_s: Seconds in which the client tries, on whichever connection.

        Raises:
            Refused: Not allowed, or malformed; temporary refusals are tried again here.
            PublishOutcomeUnknown: No answer in time; it may be stored or not.
            ConnectionClosed: The client is closed.
        """
        return await self._publish({"type": "send", "topic": topic, "data": data}, key, timeout_s)

    async def broadcast(self, data: JSON, *, key: str | None = None, timeout_s: float = 30.0) -> str | None:
        """Publish to every connection of the channel; see `publish`."""
        return await self._publish({"type": "broadcast", "data": data}, key, timeout_s)

    async def send_to(
        self, conn_id: str | Collection[str], data: JSON, *, key: str | None = None, timeout_s: float = 30.0
    ) -> str | None:
        """Publish to the connections of one id, or of several; see `publish`."""
        ids = conn_id if isinstance(conn_id, str) else list(conn_id)
        return await self._publish({"type": "send_by_conn_id", "conn_id": ids, "data": data}, key, timeout_s)

    # -- requests

    async def _publish(self, members: dict[str, Any], key: str | None, timeout_s: float) -> str | None:
        members["key"] = key or self._state.new_key()
        backoff = Backoff(first_s=0.1, max_s=2.0)
        try:
            async with asyncio.timeout(timeout_s), self._window:
                while True:
                    try:
                        position: str | None = (await self._ask(members)).get("pos")
                        return position
                    except Refused as error:
                        if not error.temporary:
                            raise
                        await asyncio.sleep(error.retry_in_s or backoff.next_s())
        except TimeoutError as error:
            raise PublishOutcomeUnknown(str(members.get("topic", members["type"]))) from error

    async def _ask(self, members: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a request on this connection or the next; return the node's answer."""
        self._check_open()
        self._endpoint.codec.encode(members)  # what cannot be encoded fails here and never reaches a connection
        number, message = self._state.request(members)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._changed.set()
        try:
            if self._link is not None and self._state.online:
                self._state.sent(number, asyncio.get_running_loop().time())
                await self._link.send(message)
            found: Mapping[str, Any] = await answer
            return found
        finally:
            del self._answers[number]
            self._state.forget(number)

    def _send_soon(self, message: JSON) -> None:
        if self._link is not None:
            self._tasks.spawn(self._link.send(message), name="dws client sends")

    # -- the connection

    async def _run(self) -> None:
        ending = Ending(error=ConnectionClosed(1006, "the client's own task failed"))
        try:
            while (ending := await self._session()).retry:
                delay_s = 0.0 if ending.at_once else self._backoff.next_s()
                logger.info("%s; connecting again in %.1f s", ending.error, delay_s)
                await asyncio.sleep(delay_s)
        finally:
            self._stop(ending.error)

    async def _session(self) -> Ending:
        """Connect and read until the connection ends."""
        link: Link | None = None
        try:
            link = self._link = Link(await self._endpoint.open(), self._endpoint.codec)
            await link.send(self._state.hello())
            while True:
                await self._room()
                for event in self._state.receive(await link.receive()):
                    await self._on_event(event, link)
        except (DWSError, OSError, SocketError, TimeoutError) as error:
            ending = ending_of(error)
            return Ending(error=ending.error, at_once=True) if link is not None and link.leaving else ending
        finally:
            self._link = None
            self._state.offline()
            if link is not None:
                if link.since_s is not None and asyncio.get_running_loop().time() - link.since_s > _STEADY_S:
                    self._backoff.reset()
                await link.end()

    async def _room(self) -> None:
        """Wait while a subscription is full, unless somebody awaits an answer: perhaps the one who should empty it."""
        while self._subscriptions.full and not self._state.waits:
            self._changed.clear()
            await self._changed.wait()

    async def _on_event(self, event: Event, link: Link) -> None:
        match event:
            case Message():
                for overflow in self._subscriptions.deliver(event):
                    self._announcer.announce(overflow)
            case Answered(id=number, frame=result) | Failed(id=number, error=result):
                self._settle(number, result)
            case Gap():
                self._announcer.announce(event)
            case Connected():
                await self._on_connected(event, link)
            case Subscribed() | NotSubscribed():
                self._subscriptions.answered(event)
            case HelloRefused(error=refusal):
                raise refusal
            case Leave(in_s=in_s):
                self._tasks.spawn(self._leave(link, in_s), name="dws client leaves its node")
            case Expiring():
                self._tasks.spawn(self._refresh(), name="dws client refreshes its token")

    async def _on_connected(self, event: Connected, link: Link) -> None:
        now = link.since_s = asyncio.get_running_loop().time()
        self._conn_id = event.conn_id
        messages, failures = self._state.resume(now)
        for failure in failures:
            self._settle(failure.id, failure.error)
        self._online.set()
        await link.send(*messages)

    async def _leave(self, link: Link, in_s: float) -> None:
        await asyncio.sleep(in_s)
        link.leaving = True
        await link.close()

    async def _refresh(self) -> None:
        """Give the node a new token; where that fails, it closes with 4002 and the next connection has one."""
        if not callable(self._endpoint.token):
            return
        try:
            await self._ask({"type": "refresh", "data": {"token": await self._endpoint.fresh_token()}})
        except DWSError as error:
            logger.warning("the token could not be refreshed: %s", error)

    # -- inside

    def _on_unsubscribed(self, subscription: Subscription) -> None:
        if subscription.filter is not None:
            message = self._state.unsubscribe(subscription.filter)
            if message is not None:
                self._send_soon(message)

    def _settle(self, number: int, result: Mapping[str, Any] | DWSError) -> None:
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return
        if isinstance(result, DWSError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def _stop(self, error: DWSError) -> None:
        """End for good."""
        if self._end is not None:
            return
        self._end = error
        for number in tuple(self._answers):
            self._settle(number, error)
        self._subscriptions.fail(error)
        self._online.set()

    def _check_open(self) -> None:
        if self._end is not None:
            raise self._end
