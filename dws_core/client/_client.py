"""`Client`: the I/O around `ClientState`. One task connects, reads and reconnects."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from websockets.exceptions import WebSocketException as SocketError

from dws_core._errors import ConnectionClosed, DWSError
from dws_core._log.backoff import Backoff
from dws_core._tasks import Tasks
from dws_core._wire.close_codes import ABNORMAL, CloseCode
from dws_core._wire.codecs import Codec, encode_within
from dws_core._wire.message import JSON
from dws_core.client._announcer import Announcer, OnGap
from dws_core.client._answering import Answering, OnRequest
from dws_core.client._endpoint import Ending, Endpoint, OnUnauthenticated, Token, codec_of, ending_of
from dws_core.client._events import (
    Answered,
    Connected,
    Event,
    Expiring,
    Failed,
    Gap,
    HelloRefused,
    Leave,
    Message,
    Postponed,
    Requested,
)
from dws_core.client._link import Link
from dws_core.client._publishing import Publishing, PublishMethods, Recalled
from dws_core.client._refreshing import Refreshing
from dws_core.client._replies import Replies
from dws_core.client._state import ClientState, stored_messages
from dws_core.client._subscription import Subscription, Subscriptions

if TYPE_CHECKING:
    from ssl import SSLContext

logger = logging.getLogger("dws.client")

_STEADY_S: Final = 5.0
"""Time in seconds after which a connection counts as stable. When it ends, the backoff starts again."""


class Client(PublishMethods):
    """A client that reconnects automatically, resumes where it left off, and reports lost messages.

    ```python
    async with Client("ws://localhost:8000/ws/me", on_gap=print) as client:
        async with client.subscribe("chat/#") as messages:
            await client.publish("chat/lobby", {"text": "hello"})
            async for message in messages:
                print(message.topic, message.data)
    ```

    Each message arrives once, in the order of its topic, across reconnects and nodes. If the topic's history does not
    reach back far enough, `on_gap` is called instead. A publish returns when the broker has stored the message. After a
    lost connection it is repeated with the same key, so the message is not published twice.

    Args:
        url: URL of the node, `ws://` or `wss://`.
        token: Bearer token, or a function that returns one for each connection, and before the current one expires. The
            function may be sync or async.
        codec: `json`, `msgpack`, the codec of an installed plugin such as `cbor?canonical=yes`, or a codec object.
        on_gap: Function to call with a `Gap` when messages may have been lost. Sync or async. If None, gaps are logged.
        on_unauthenticated: Function to call with the `AuthenticationFailed` when a node refuses the token. If it returns
            True, the client tries again with a new token after its backoff. Otherwise, or if None, the client ends. Sync
            or async.
        cursor: Cursor of an earlier client, from which to resume. Subscribe before you enter the client to resume
            there.
        headers: Further header fields of the handshake.
        allowed_redirects: Hosts to which a node may redirect the client, with its token and header fields.
        ssl: TLS settings for `wss://`. If None, the system's settings are used.
        proxy: Whether to use the proxies that are set in the environment.
        queue_messages: Maximum number of messages queued in a subscription before the client stops reading. The node
            then applies its slow-consumer policy. While the client waits for a reply it continues to read, up to ten
            times as many messages.
        window: Maximum number of unanswered publishes. Further publishes wait.
        connect_timeout_s: Timeout in seconds for each handshake, and for the first connection including its retries.
        retry_first: Whether to retry the first connection. If False, entering the client raises why it failed.
        backoff: Delays between attempts. If None, full jitter from 0.5 s up to 30 s.

    Raises:
        ConfigurationError: No installed plugin offers a codec with this name, or it refuses an option.
        InvalidMessage: The cursor is malformed.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        codec: str | Codec = "json",
        on_gap: OnGap | None = None,
        on_unauthenticated: OnUnauthenticated | None = None,
        cursor: str | None = None,
        headers: Mapping[str, str] | None = None,
        allowed_redirects: Collection[str] = (),
        ssl: SSLContext | None = None,
        proxy: bool = True,
        queue_messages: int = 1_000,
        window: int = 100,
        connect_timeout_s: float = 10.0,
        retry_first: bool = True,
        backoff: Backoff | None = None,
    ) -> None:
        self._endpoint = Endpoint(
            url=url,
            codec=codec_of(codec),
            token=token,
            on_unauthenticated=on_unauthenticated,
            headers=headers or {},
            allowed_redirects=frozenset(allowed_redirects),
            ssl=ssl,
            proxy=proxy,
            timeout_s=connect_timeout_s,
        )
        prefix, client_id = secrets.token_urlsafe(12) + "-", secrets.token_urlsafe(16)
        self._state = ClientState(key_prefix=prefix, client_id=client_id, cursor=cursor)
        self._connect_timeout_s = connect_timeout_s
        self._retry_first = retry_first
        self._was_connected = False
        self._failure: DWSError | None = None
        self._publishing = Publishing(self._ask, window)
        self._backoff = backoff or Backoff(first_s=0.5, max_s=30.0)
        self._postponing = Backoff(first_s=0.1, max_s=5.0)
        self._tasks = Tasks()
        self._refreshing = Refreshing(self._endpoint, self._ask, self._tasks)
        self._announcer = Announcer(on_gap, self._tasks)
        self._answering = Answering(self._publishing.publish, self._tasks)
        self._changed = asyncio.Event()
        self._subscriptions = Subscriptions(
            queue_messages=queue_messages, on_change=self._changed.set, on_close=self._on_unsubscribed
        )
        self._replies = Replies()
        self._link: Link | None = None
        self._conn_id: str | None = None
        self._online = asyncio.Event()
        self._end: DWSError | None = None

    # -- life cycle

    @property
    def conn_id(self) -> str | None:
        """The connection id, to which direct messages are sent. None if unknown."""
        return self._conn_id

    @property
    def connected(self) -> bool:
        """Whether the client is connected to a node now."""
        return self._state.online

    @property
    def cursor(self) -> str | None:
        """The current cursor, from which a later `Client` can resume. None if the node has not sent one yet.

        It includes every message that has arrived, even if it is still queued in a subscription. It includes a
        subscription with `last` as soon as its past has arrived.
        """
        return self._state.cursor

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            AuthenticationFailed: The node refuses the token or the origin.
            ConnectionClosed: No node could be reached within `connect_timeout_s`, or the node closed the connection
                with a code after which clients must not reconnect.
            WebSocketException: The server answered with another HTTP status, for example 404.
            Refused: The node does not allow a filter that was subscribed before.
        """
        self._tasks.spawn(self._run(), name="dws client")
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._online.wait()
        except BaseException as error:
            await self.aclose()
            if isinstance(error, TimeoutError):
                why = "" if self._failure is None else f", last failure: {self._failure}"
                raise ConnectionClosed(ABNORMAL, f"no connection within {self._connect_timeout_s} s{why}") from error
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
        """Close the client. Iterations end and unanswered requests fail. Closing again does nothing."""
        self._stop(ConnectionClosed(CloseCode.NORMAL, "closed by the application"))
        self._subscriptions.close()
        await self._tasks.stop()

    # -- receiving

    def subscribe(self, filter_: str, *, last: int | None = None) -> Subscription:
        """Subscribe to a filter: `async with client.subscribe("chat/#") as messages`.

        May be called before the client is connected. `Subscription` describes when the subscription takes effect.

        Args:
            filter_: Filter. With `last`, a topic without wildcards.
            last: Number of past messages to receive first. If None, only new messages arrive. Reconnects neither lose
                nor repeat messages of the past.

        Raises:
            InvalidFilter: The filter breaks a rule of MQTT 5.0 §4.7.
            ConnectionClosed: The client is closed.
        """
        self._check_open()
        subscription = self._subscriptions.add(filter_, with_past=last is not None)
        if last is not None and subscription._number is not None:
            self._send_soon(self._state.open(subscription._number, filter_, last))
        elif (message := self._state.subscribe(filter_)) is not None:
            self._send_soon(message)
        elif filter_ in self._state.in_force:
            subscription.in_force()
        return subscription

    def inbox(self) -> Subscription:
        """Receive broadcasts, direct messages and messages to the user. Without an inbox they are dropped.

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
            Refused: The node does not allow it, or keeps no history.
            InvalidMessage: The node's reply breaks the protocol.
            ConnectionClosed: The client is closed.
        """
        return stored_messages(topic, await self._ask({"type": "history", "topic": topic, "limit": limit}))

    # -- requests

    def on_request(self, handler: OnRequest) -> OnRequest:
        """Reply to the requests of the node's application: `@client.on_request`.

        The function receives the data of a request and returns the data of the reply. It may be sync or async. Up to 100
        requests are answered at the same time, each within its own time limit. A second call replaces the function.

        Returns:
            The function itself.
        """
        self._answering.handler = handler
        return handler

    async def _ask(self, members: Mapping[str, Any], recall: asyncio.Future[None] | None = None) -> Mapping[str, Any]:
        """Send a request on this connection, or on the next one, and return the node's reply. See `Ask`."""
        self._check_open()
        # A value that cannot be encoded raises here, not on a connection.
        encode_within(self._endpoint.codec, members.get("data"), members)
        number, message = self._state.request(members)
        reply = self._replies.expect(number)
        if recall is not None:
            recall.add_done_callback(lambda _: self._replies.settle(number, Recalled()))
        self._changed.set()
        try:
            if self._link is not None and self._state.online:
                self._state.sent(number, asyncio.get_running_loop().time())
                await self._link.send(message)
            return await reply
        finally:
            self._replies.forget(number)
            self._state.forget(number)

    def _send_soon(self, message: JSON | None) -> None:
        if message is not None and self._link is not None:
            self._tasks.spawn(self._link.send(message), name="dws client sends")

    # -- the connection

    async def _run(self) -> None:
        ending = Ending(error=ConnectionClosed(ABNORMAL, "the client's own task failed"))
        try:
            while (ending := await self._session()).retry and (self._was_connected or self._retry_first):
                self._failure = ending.error
                delay_s = 0.0 if ending.at_once else max(ending.retry_in_s, self._backoff.next_s())
                logger.info("reconnecting in %.1f s: %s", delay_s, ending.error)
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
            ending = ending_of(error, self._endpoint.url, was_connected=self._was_connected)
            if link is not None and link.leaving:
                return Ending(error=ending.error, at_once=True)
            return await self._endpoint.reconsider(ending)
        finally:
            self._link = None
            self._refreshing.end()
            self._state.offline()
            if link is not None:
                if link.since_s is not None and asyncio.get_running_loop().time() - link.since_s > _STEADY_S:
                    self._backoff.reset()
                await link.end()

    async def _room(self) -> None:
        """Wait while a subscription is full, unless a request is unanswered: its caller may be the subscriber."""
        while self._subscriptions.full and not self._state.waits:
            self._changed.clear()
            await self._changed.wait()

    async def _on_event(self, event: Event, link: Link) -> None:
        match event:
            case Answered(id=number, frame=result) | Failed(id=number, error=result):
                self._replies.settle(number, result)
            case Gap():
                self._announcer.announce(event)
            case Connected():
                await self._on_connected(event, link)
            case HelloRefused(error=refusal):
                raise refusal
            case Requested() | Leave() | Expiring() | Postponed():
                self._begin(event, link)
            case _:
                for overflow in self._subscriptions.receive(event):
                    self._announcer.announce(overflow)

    def _begin(self, event: Requested | Leave | Expiring | Postponed, link: Link) -> None:
        """Do in the background what the node asks for."""
        match event:
            case Requested():
                self._answering.begin(event)
            case Leave(in_s=in_s):
                self._tasks.spawn(link.leave(in_s), name="dws client leaves its node")
            case Expiring():
                self._refreshing.begin()
            case Postponed():
                self._tasks.spawn(self._reopen(event), name="dws client subscribes again")

    async def _on_connected(self, event: Connected, link: Link) -> None:
        now = link.since_s = asyncio.get_running_loop().time()
        self._conn_id, self._was_connected = event.conn_id, True
        self._postponing.reset()
        messages, failures = self._state.resume(now)
        for failure in failures:
            self._replies.settle(failure.id, failure.error)
        self._online.set()
        await link.send(*messages)

    async def _reopen(self, refused: Postponed) -> None:
        await asyncio.sleep(max(refused.retry_in_s, self._postponing.next_s()))
        self._send_soon(self._state.reopen(refused.subscription))

    # -- inside

    def _on_unsubscribed(self, subscription: Subscription) -> None:
        if subscription.filter is not None:
            self._send_soon(self._state.unsubscribe(subscription.filter, subscription._number))

    def _stop(self, error: DWSError) -> None:
        """End the client: fail all requests and subscriptions."""
        if self._end is not None:
            return
        self._end = error
        self._replies.fail_all(error)
        self._subscriptions.fail(error)
        self._online.set()

    def _check_open(self) -> None:
        if self._end is not None:
            raise self._end
