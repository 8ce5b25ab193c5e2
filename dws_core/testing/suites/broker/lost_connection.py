"""Broker suite, plain brokers only: a lost connection loses no message, or it is reported."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeAlias

import pytest

from dws_core.plugin import BrokerClosed, BrokerError, BrokerUnavailable
from dws_core.testing.faults.cause import Cause
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer, Sever
from dws_core.testing.suites.peers import PlainPeer
from dws_core.testing.suites.selection import needs

Action: TypeAlias = Callable[[], Awaitable[None]]

_NODE_WAITS_S: Final = 5.0
_FROZEN_S: Final = 0.3

_RULE = (
    "If messages may be lost with a connection, deliveries() must raise an exception or end before it yields a later "
    "message. Fix: do not reconnect silently, the node connects again itself"
)


class BrokerLostConnectionTests(BrokerBase):
    """The rules of `BrokerInterface` for lost connections. Most tests need `sever` or `fault`."""

    @needs("plain")
    async def test_interrupted_broker_connects_again(self, open_peer: OpenPeer) -> None:
        """A broker can be connected again after `disconnect`, and then delivers each message once."""
        a: PlainPeer = await open_peer()
        async with _recovering(await open_peer()) as node:
            for number in range(3):
                await node.peer.close()
                await node.until(partial(_reported, node, number + 1), "the node to connect again")
                for text in (b"%d" % number, b"end %d" % number):
                    await a.publish(text)
                await node.until(partial(node.events.__contains__, b"end %d" % number), "a message after that")
            expected = [text for n in range(3) for text in (None, b"%d" % n, b"end %d" % n)]
            assert node.events == expected, "each message arrives once after a reconnect, and nothing else ends"

    @needs("plain", fixture="sever")
    async def test_messages_arrive_again_after_broken_connection(self, open_peer: OpenPeer, sever: Sever) -> None:
        async with _recovering(await open_peer()) as a, _recovering(await open_peer()) as b:
            await sever()
            await _talk_until(a, b, b"hello")

    @needs("plain", fixture="sever")
    async def test_severed_connection_loses_nothing_or_is_reported(self, open_peer: OpenPeer, sever: Sever) -> None:
        """As the next test, for a suite without the fixture `fault`."""
        await self._break_off(open_peer, sever, 5)

    @pytest.mark.parametrize(
        ("name", "rounds"),
        [
            pytest.param(name, rounds, id=f"{name}-{rounds}", marks=needs("plain", faults=(name,)))
            for name, rounds in (("cut_tail", 10), ("cut_commands", 10), ("restart", 3))
        ],
    )
    async def test_lost_connection_loses_nothing_or_is_reported(
        self, open_peer: OpenPeer, cause: Cause, name: str, rounds: int
    ) -> None:
        """The connections break while one node publishes and another receives."""
        await self._break_off(open_peer, partial(cause, name), rounds)

    async def _break_off(self, open_peer: OpenPeer, break_off: Action, rounds: int) -> None:
        async with _recovering(await open_peer()) as a, _recovering(await open_peer()) as b:
            for number in range(rounds):
                await self._lose_nothing(a, b, break_off, number)

    async def _lose_nothing(self, a: RecoveringNode, b: RecoveringNode, break_off: Action, number: int) -> None:
        texts, start = [b"%d/%d" % (number, n) for n in range(10)], len(b.events)

        async def publish() -> None:
            for text in texts:
                await a.insist(text)
                await asyncio.sleep(0)  # some brokers reply at once, and the fault must find them at work

        await asyncio.gather(break_off(), publish())
        await _talk_until(a, b, b"end %d" % number)
        if type(b.peer.broker).capabilities.ordering == "none":  # the last message may overtake the others
            await b.until(lambda: _explained(texts, b.events[start:]), f"all messages, or a report. {_RULE}")
            return
        events = b.events[start : b.events.index(b"end %d" % number, start)]
        missing = set(texts) - set(events)
        assert _explained(texts, events), f"{len(missing)} messages are missing, and nothing was reported. {_RULE}"

    @needs("plain", faults=("freeze", "thaw"))
    async def test_frozen_server_loses_nothing_or_is_reported(self, open_peer: OpenPeer, cause: Cause) -> None:
        """Publishes wait or fail while the server is frozen. What it accepts arrives, or the loss is reported."""
        async with _recovering(await open_peer()) as a, _recovering(await open_peer()) as b:
            for number in range(3):
                await self._lose_nothing(a, b, partial(_freeze_for_a_while, cause, a), number)

    @needs("plain", faults=("freeze", "thaw"))
    async def test_disconnect_does_not_wait_for_frozen_server(self, open_peer: OpenPeer, cause: Cause) -> None:
        a: PlainPeer = await open_peer()
        await cause("freeze")
        try:
            try:
                async with asyncio.timeout(min(_NODE_WAITS_S, a.hang_limit_s)):
                    await a.broker.disconnect()
            except TimeoutError:
                raise AssertionError(
                    "disconnect() waits for a server that does not answer. The node waits for 5 s, and then leaves the "
                    "connection open. Fix: close the connection without a reply"
                ) from None
        finally:
            await cause("thaw")
        await a.open()
        await a.publish(b"again")
        await a.receive_until(b"again")

    @needs("plain", faults=("take_down", "bring_up"))
    async def test_unreachable_broker_is_reached_again(
        self, open_peer: OpenPeer, make_peer: Callable[..., PlainPeer], cause: Cause
    ) -> None:
        """A failed `connect` raises `BrokerUnavailable`, can be disconnected, and can be repeated."""
        late = make_peer()
        async with _recovering(await open_peer()) as a, _recovering(await open_peer()) as b:
            await cause("take_down")
            try:
                for _ in range(2):
                    with pytest.raises(BrokerUnavailable):
                        await late.within(late.broker.connect())
                    for _ in range(2):
                        await late.close()
                with pytest.raises((BrokerUnavailable, BrokerClosed)):
                    await a.peer.publish(b"lost")
            finally:
                await cause("bring_up")
            await _talk_until(a, b, b"again")
        await late.open()
        try:
            await late.publish(b"late")
            await late.receive_until(b"late")
        finally:
            await late.close()


class RecoveringNode:
    """A node that follows the rules for lost connections, as the core does.

    Attributes:
        peer: The broker.
        events: The payloads that arrived, and None for each report of a loss.
    """

    def __init__(self, peer: PlainPeer) -> None:
        self.peer = peer
        self.events: list[bytes | None] = []
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Read deliveries, and reconnect whenever they are interrupted."""
        try:
            while True:
                with contextlib.suppress(Exception):  # any exception reports the loss
                    async for delivery in self.peer.broker.deliveries():
                        self.events.append(delivery.payload)
                await self._reconnect()
                self.events.append(None)
        except AssertionError as error:
            self._failure = error

    async def _reconnect(self) -> None:
        while True:
            await self._hang_up()
            try:
                await self.peer.open()
            except AssertionError:
                raise
            except Exception:  # noqa: BLE001 -- the core also tries again, whatever the reason
                await self._hang_up()
                await asyncio.sleep(0.01)
            else:
                return

    async def _hang_up(self) -> None:
        try:
            await self.peer.close()
        except AssertionError:
            raise  # it hangs
        except Exception:  # noqa: BLE001, S110 -- the connection may be the reason
            pass

    async def until(self, happened: Callable[[], bool], what: str, *, action: Action | None = None) -> None:
        """Wait until something has happened. Repeat the action, if one is given."""

        async def ask() -> bool:
            if action is not None:
                await action()
            if self._failure is not None:
                raise self._failure
            return happened()

        await self.peer.poll_until(ask, what)

    async def insist(self, payload: bytes) -> None:
        """Publish until the broker has it."""

        async def stored() -> bool:
            try:
                await self.peer.publish(payload)
            except BrokerError:
                return False
            return True

        await self.peer.poll_until(stored, f"the broker to accept {payload!r}")


async def _freeze_for_a_while(cause: Cause, node: RecoveringNode) -> None:
    """Freeze the server while publishes are sent to it."""
    await cause("freeze")
    try:
        await asyncio.sleep(min(_FROZEN_S, node.peer.hang_limit_s / 3))  # a publish may wait without any event
    finally:
        await cause("thaw")


@asynccontextmanager
async def _recovering(peer: PlainPeer) -> AsyncIterator[RecoveringNode]:
    node = RecoveringNode(peer)
    reading = asyncio.get_running_loop().create_task(node.run())
    try:
        yield node
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _talk_until(sender: RecoveringNode, receiver: RecoveringNode, text: bytes) -> None:
    """Publish a message until it arrives: some are lost until the connection is back."""

    async def publish() -> None:
        with contextlib.suppress(BrokerError):
            await sender.peer.publish(text)

    what = f"the message {text!r} after the broken connection"
    await receiver.until(partial(receiver.events.__contains__, text), what, action=publish)


def _explained(texts: list[bytes], events: list[bytes | None]) -> bool:
    return None in events or set(texts) <= set(events)


def _reported(node: RecoveringNode, times: int) -> bool:
    return node.events.count(None) >= times
