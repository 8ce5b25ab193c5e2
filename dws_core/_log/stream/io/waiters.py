"""Calls that wait until a tail has reached a place."""

from __future__ import annotations

import asyncio

from dws_core._errors import BrokerError


class Waiters:
    """Futures by what they wait for.

    A failed session fails those that wait for a place, but not those that wait for a live partition: these have a
    deadline of their own.
    """

    def __init__(self) -> None:
        self._places: list[tuple[int, int, asyncio.Future[None]]] = []
        self._probes: dict[tuple[int, int], asyncio.Future[None]] = {}
        self._lives: list[tuple[int, asyncio.Future[None]]] = []

    def until_live(self, partition: int) -> asyncio.Future[None]:
        """Return a future that is done when a partition is live."""
        self._lives.append((partition, future := _future()))
        return future

    def until_reached(self, partition: int, offset: int) -> asyncio.Future[None]:
        """Return a future that is done when a tail has read the envelope at an offset."""
        self._places.append((partition, offset, future := _future()))
        return future

    def until_probe(self, partition: int, number: int) -> asyncio.Future[None]:
        """Return a future that is done when a tail has read this node's probe."""
        return self._probes.setdefault((partition, number), _future())

    def live(self, partition: int) -> None:
        """Note that a partition is live."""
        _finish([future for number, future in self._lives if number == partition])
        self._lives = [entry for entry in self._lives if not entry[1].done()]

    def reached(self, partition: int, offset: int) -> None:
        """Note how far a tail is."""
        if self._places:
            _finish([future for number, place, future in self._places if number == partition and place <= offset])
            self._places = [entry for entry in self._places if not entry[2].done()]

    def probe_seen(self, partition: int, number: int) -> None:
        """Note that a probe was read."""
        _finish([future] if (future := self._probes.pop((partition, number), None)) else [])

    def fail(self, error: BrokerError) -> None:
        """Fail all that wait for a place; with `BrokerClosed` really all."""
        futures = [*(entry[2] for entry in self._places), *self._probes.values()]
        if error.slug == "broker-closed":
            futures += [future for _, future in self._lives]
        for future in futures:
            if not future.done():
                future.set_exception(error)
                future.exception()  # the waiting call may have been cancelled
        self._places.clear()
        self._probes.clear()


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def _finish(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
