"""A publish in progress, which may be awaited, made a task, waited for in a thread, or dropped."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from dws_core._errors import BrokerClosed, ConfigurationError, PublishOutcomeUnknown
from dws_core._log.records import Receipt

logger = logging.getLogger("dws")

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")
AnyFuture: TypeAlias = "asyncio.Future[Receipt] | concurrent.futures.Future[Receipt]"


class PendingPublish(Coroutine[Any, Any, list[Receipt]]):
    """A publish in progress. It has started already, so that it may be dropped. A failure that nobody awaits is logged.

    It can be used like a coroutine, for example with `asyncio.create_task`. It can be awaited in any event loop and
    several times.
    """

    __slots__ = ("_awaited", "_complete", "_delivered", "_futures", "_slow_loop", "_steps", "_topic")

    def __init__(
        self,
        futures: Sequence[AnyFuture],
        topic: str,
        complete: Callable[[Sequence[Receipt]], list[Receipt]] = list,
        *,
        delivered: Callable[[], Coroutine[Any, Any, None]] | None = None,
        slow_loop: Callable[[], asyncio.AbstractEventLoop | None] | None = None,
    ) -> None:
        self._futures = futures
        self._topic = topic
        self._complete = complete
        self._delivered = delivered
        self._slow_loop = slow_loop
        self._awaited = False
        self._steps: Generator[Any, None, list[Receipt]] | None = None
        for future in futures:
            future.add_done_callback(self._on_done)

    def result(self, timeout_s: float | None = None) -> list[Receipt]:
        """Wait in a thread without an event loop until the broker has stored the message.

        Like `await`, this then waits for connections of this node that are over `Limits.outbox_bytes`, as long as they
        read and the timeout has not passed.

        Args:
            timeout_s: Maximum duration, in seconds. If None, the broker's own time limit applies.

        Returns:
            One receipt for each topic.

        Raises:
            ConfigurationError: The calling thread runs an event loop, which this would block.
            TimeoutError: It took longer than `timeout_s`. The message may be stored.
            BrokerError: See `WebSocketManager.publish`.
        """
        if running_loop() is not None:
            raise ConfigurationError("result() would block the event loop.", fix="use `await` instead")
        self._awaited = True
        began = time.monotonic()
        waiting = [_for_threads(future) for future in self._futures]
        if concurrent.futures.wait(waiting, timeout_s).not_done:
            raise TimeoutError(f"publish to {self._topic!r} was not acknowledged within {timeout_s} s")
        receipts = self._receipts(waiting)
        self._wait_for_readers(None if timeout_s is None else max(0.0, began + timeout_s - time.monotonic()))
        return receipts

    def _wait_for_readers(self, timeout_s: float | None) -> None:
        loop, delivered = self._slow_loop and self._slow_loop(), self._delivered
        if loop is not None and delivered is not None:
            with contextlib.suppress(BrokerClosed):
                reading = call_in_loop(loop, 1, lambda: [loop.create_task(delivered(), name="dws readers")])
                concurrent.futures.wait(reading, timeout_s)

    def __await__(self) -> Generator[Any, None, list[Receipt]]:
        if running_loop() is None:
            raise ConfigurationError("a publish can be awaited in an event loop of asyncio only.", fix="use result()")
        self._awaited = True
        futures = [_for_this_loop(future) for future in self._futures]
        if len(futures) == 1:
            yield from asyncio.shield(futures[0]).__await__()
        elif futures:
            yield from asyncio.wait(futures).__await__()  # does not cancel them
        receipts = self._receipts(futures)
        if self._delivered is not None:
            yield from self._delivered().__await__()
        return receipts

    def send(self, value: Any) -> Any:
        """Continue, as a coroutine does."""
        return self._started().send(value)

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        """Raise an exception at the point where the caller waits, as a coroutine does. The publish continues."""
        return self._started().throw(typ if val is None else val)

    def close(self) -> None:
        """Stop waiting, as a coroutine does. The publish continues."""
        if self._steps is not None:
            self._steps.close()

    def _started(self) -> Generator[Any, None, list[Receipt]]:
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps

    def _receipts(self, futures: Sequence[AnyFuture]) -> list[Receipt]:
        if (failure := failure_of(futures, self._topic)) is not None:
            raise failure
        return self._complete([future.result() for future in futures])

    def _on_done(self, future: AnyFuture) -> None:
        if not future.cancelled() and (error := future.exception()) is not None and not self._awaited:
            logger.error("publish to %r failed: %s", self._topic, error)


def failure_of(futures: Sequence[AnyFuture], topic: str) -> BaseException | None:
    """Return why a publish to several topics has failed, or None if it has not. All futures are done.

    If some of them may be stored, the outcome is unknown, and nobody can repeat the publish safely without a key.
    """
    if len(futures) == 1:
        return _failure(futures[0], topic)
    failures = [_failure(future, topic) for future in futures]
    certain = [
        failure for failure in failures if failure is not None and not isinstance(failure, PublishOutcomeUnknown)
    ]
    if len(certain) == len(failures):
        return certain[0] if certain else None
    if all(failure is None for failure in failures):
        return None
    unknown = PublishOutcomeUnknown(topic)
    unknown.__cause__ = next(failure for failure in failures if failure is not None)
    return unknown


def _failure(future: AnyFuture, topic: str) -> BaseException | None:
    return PublishOutcomeUnknown(topic) if future.cancelled() else future.exception()


def call_in_loop(
    loop: asyncio.AbstractEventLoop, count: int, make: Callable[[], Sequence[asyncio.Future[T]]]
) -> list[concurrent.futures.Future[T]]:
    """Call `make` in an event loop of another thread, and return at once.

    Args:
        loop: The event loop.
        count: Number of futures that `make` returns.
        make: Returns futures of the event loop.

    Returns:
        Futures for threads. They complete with those of `make`.

    Raises:
        BrokerClosed: The event loop is closed.
    """
    results: list[concurrent.futures.Future[T]] = [concurrent.futures.Future() for _ in range(count)]

    def begin() -> None:
        try:
            for future, result in zip(make(), results, strict=True):
                future.add_done_callback(partial(_copy, result))
        except Exception as error:  # noqa: BLE001 -- the caller gets it
            for result in results:
                result.set_exception(error)

    try:
        loop.call_soon_threadsafe(begin)
    except RuntimeError as error:
        raise BrokerClosed("the event loop of the node is closed.", fix="publish while the application runs") from error
    return results


def _copy(result: concurrent.futures.Future[T], done: asyncio.Future[T]) -> None:
    if done.cancelled():
        result.set_exception(BrokerClosed("the node was stopped.", fix="publish while the application runs"))
    elif (error := done.exception()) is not None:
        result.set_exception(error)
    else:
        result.set_result(done.result())


def _for_threads(future: AnyFuture) -> concurrent.futures.Future[Receipt]:
    if isinstance(future, concurrent.futures.Future):
        return future
    return call_in_loop(future.get_loop(), 1, lambda: [future])[0]


def _for_this_loop(future: AnyFuture) -> asyncio.Future[Receipt]:
    if isinstance(future, asyncio.Future) and future.get_loop() is asyncio.get_running_loop():
        return future
    return asyncio.wrap_future(_for_threads(future))


def acts_as_coroutine(method: F) -> F:
    """Mark a method that returns a `PendingPublish` as a coroutine function.

    Starlette and FastAPI run other functions in a thread, for example those of `BackgroundTasks`.
    """
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(method)
    method._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # what asyncio looks for
    return method


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
