"""One client's WebSocket connection."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context

from starlette.datastructures import State
from starlette.websockets import WebSocket, WebSocketState

from dws_core._auth.interface import Principal
from dws_core._limits.backlog import SlowConsumer
from dws_core._node.connection.filter_set import FilterSet
from dws_core._node.connection.handler_guard import HandlerGuard
from dws_core._node.connection.host import ConnectionHost, StandaloneHost
from dws_core._node.connection.reader import SOCKET_CLOSED, SocketReader
from dws_core._node.sending.outbox import Outbox, OutboxSettings, ReadyOutbox, SendMessage, TaskOutbox
from dws_core._node.sending.ready_frames import sink_of
from dws_core._reason import shorten_reason
from dws_core._wire.close_codes import ABNORMAL, CloseCode, check_code, reason_of
from dws_core._wire.codecs import Codec, JSONCodec
from dws_core._wire.message import JSON

logger = logging.getLogger("dws")


class Connection(SocketReader):
    """One client's connection: receiving, sending, its filters and its identity.

    `WebSocketManager.connect` and `new_connection` create it. A connection created by hand works without a manager.

    Args:
        websocket: Starlette's or FastAPI's WebSocket.
        conn_id: Connection id, the address of direct messages.
        topic: Filter to subscribe to immediately. If None, the connection starts without filters.
        principal: Identity of the client. If None, it is not authenticated.
        codec: Codec of the client's messages. If None, JSON.
        slow_consumer: Policy when the client does not read fast enough. If None, `Limits.slow_consumer`.
        host: The node. If None, the connection works alone.

    Attributes:
        websocket: The underlying WebSocket. Do not send through it, because the outbox owns the writing side.
        id: Connection id. Several connections may share one.
        principal: Identity of the client, or None if it is not authenticated.
        codec: Codec of the client's messages.
    """

    __slots__ = ("__weakref__", "_ended", "_guard", "id", "principal")

    def __init__(
        self,
        websocket: WebSocket,
        conn_id: str,
        topic: str | None = None,
        *,
        principal: Principal | None = None,
        codec: Codec | None = None,
        slow_consumer: SlowConsumer | None = None,
        host: ConnectionHost[Connection] | None = None,
    ) -> None:
        super().__init__(host or StandaloneHost())
        self.websocket: WebSocket = websocket
        self.id: str = conn_id
        self.principal: Principal | None = principal
        self.codec: Codec = codec or JSONCodec()
        self._outbox: Outbox = self._make_outbox(slow_consumer or self._host.limits.slow_consumer)
        self._guard: HandlerGuard | None = None
        self._ended = False
        if topic is not None:
            self.topics.add(topic)

    def __repr__(self) -> str:
        return f"<Connection {self.id!r}{' closed' if self.closed else ''}>"

    @property
    def topics(self) -> FilterSet[Connection]:
        """The filters of this connection, a live set: adding subscribes and removing unsubscribes."""
        return FilterSet(self._host.router, self, self._host.replays)

    @property
    def state(self) -> State:
        """Any values that the application keeps for this connection, for example `connection.state.name = "Ann"`.

        It is the `state` of the WebSocket, so dependencies and middleware use the same object. It is created at the first
        access and stays on this node.
        """
        return self.websocket.state

    @property
    def takes_ready_frames(self) -> bool:
        """Whether the server accepts ready frames, the faster path. The behaviour is the same."""
        return isinstance(self._outbox, ReadyOutbox)

    async def accept(self, subprotocol: str | None = None) -> None:
        """Accept the handshake. Does nothing if it is already accepted."""
        if self.websocket.application_state is WebSocketState.CONNECTING:
            await self.websocket.accept(subprotocol=subprotocol)

    async def send_json(self, data: JSON) -> bool:
        """Send a value to this client and wait until it is written.

        Returns:
            False if the connection is closed and the value was discarded.

        Raises:
            CodecError: The connection's codec cannot encode the value.
        """
        sent = self._host.fanout.send(self, data)
        await self._host.fanout.flushed()
        await self._outbox.flushed()
        return sent and not self._outbox.closed

    async def close(self, code: int = CloseCode.NORMAL, reason: str | None = None) -> None:
        """Write queued messages, then close. Does nothing if the connection is already closed.

        Args:
            code: A `CloseCode`, or an application code from 3000 to 4999 (RFC 6455 §7.4).
            reason: Text of the close frame. It is cut after 123 bytes of UTF-8. If None, the standard text of the code.

        Raises:
            ConfigurationError: The code may not be sent. The connection stays open.
        """
        if self._begin_close(code, reason):
            await self._finish_close()

    def disconnect(self, code: int = CloseCode.DISCONNECTED, reason: str | None = None) -> None:
        """Close without waiting. The close frame is written in the background. Arguments as for `close`."""
        if self._begin_close(code, reason):
            self._host.tasks.spawn(self._finish_close(), name=f"close connection {self.id!r}")

    async def _flushed(self) -> None:
        """Wait until all earlier messages are written."""
        await self._host.fanout.flushed()
        await self._outbox.flushed()

    async def _leave_open(self, code: int) -> None:
        """End the connection, but let somebody else close the socket. Queued messages are written."""
        if self._begin_close(code, None):
            await self._finish_close(closes_socket=False)

    async def _caught_up(self) -> None:
        """Wait until the client has read all earlier messages, or the connection is closed. Close it if it stalls."""
        await self._host.fanout.flushed()
        if not self._outbox.busy:
            return
        try:
            async with asyncio.timeout(self._host.limits.read_stall_s):
                await self._outbox.idle()
        except TimeoutError:
            self.disconnect(CloseCode.TOO_SLOW)

    def _serve(self, first: JSON = None) -> None:
        """Start to read for the current task, the handler. Called by the node, perhaps with a message read before."""
        self._guard = HandlerGuard(self.id, self._host.limits.handler_grace_s)
        self._read_in_background(f"read from connection {self.id!r}", first)

    def _serve_closed(self) -> None:
        """Guard the current task, the handler of a client that has disconnected before it was served."""
        self._guard = HandlerGuard(self.id, self._host.limits.handler_grace_s)
        self._guard.start_grace()

    def _release_handler(self) -> None:
        """Stop guarding the handler, because it has ended."""
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    def _make_outbox(self, policy: SlowConsumer) -> Outbox:
        settings = OutboxSettings(
            codec=self.codec,
            limit_bytes=self._host.limits.outbox_bytes,
            policy=policy,
            counters=self._host.counters,
            overruns=self._host.overruns,
            on_overflow=self._on_overflow,
        )
        if (sink := sink_of(self.websocket.scope)) is not None:
            if (limit := self._host.limits.message_bytes) is not None:
                sink.limit_messages(limit)
            return ReadyOutbox(sink, settings)
        return TaskOutbox(_send_of(self.websocket), self._start_writer, settings)

    def _start_writer(self, outbox: TaskOutbox, context: Context) -> asyncio.Task[None]:
        name = f"write to connection {self.id!r}"
        return self._host.tasks.spawn(self._run_writer(outbox), name=name, context=context)

    async def _run_writer(self, outbox: TaskOutbox) -> None:
        try:
            await outbox.run()
        except SOCKET_CLOSED:
            self._end(ABNORMAL, "")

    def _on_overflow(self) -> None:
        self.disconnect(CloseCode.TOO_SLOW)

    def _begin_close(self, code: int, reason: str | None) -> bool:
        code, reason = check_code(code), shorten_reason(reason_of(code) if reason is None else reason)
        if self.closed:
            return False
        self._close_code, self._close_reason = code, reason
        return True

    async def _finish_close(self, *, closes_socket: bool = True) -> None:
        try:
            async with asyncio.timeout(self._host.limits.close_timeout_s):
                self._host.fanout.flush()
                await self._outbox.flushed()
                self._outbox.close()
                if closes_socket:
                    await self.websocket.close(self._close_code or CloseCode.NORMAL, self._close_reason)
        except TimeoutError:
            logger.warning(
                "connection %r: the close frame could not be written within close_timeout_s; the socket is dropped",
                self.id,
            )
            self._outbox.abort()
        except SOCKET_CLOSED:
            pass  # the client closed first
        finally:
            self._end(self._close_code or CloseCode.NORMAL, self._close_reason)

    def _end(self, code: int, reason: str) -> None:
        if self._close_code is None:
            self._close_code, self._close_reason = code, reason
        if not self._ended:
            self._ended = True
            self._outbox.close()
            if self._inbox is not None:
                self._inbox.end()
            self._host.on_closed(self)
            if self._guard is not None:
                self._guard.start_grace()


def _send_of(websocket: WebSocket) -> SendMessage:
    """Return the function that sends an ASGI message, without the checks that Starlette repeats for each."""
    plain = type(websocket).send is WebSocket.send
    send: SendMessage = getattr(websocket, "_send", websocket.send) if plain else websocket.send
    return send
