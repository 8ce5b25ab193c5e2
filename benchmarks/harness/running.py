"""Starts servers and the load client, each pinned to its core, and ends them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.build import compiled
from harness.contenders import Contender

LOAD = Path(__file__).parents[1] / "load" / "wsload.c"
START_S = 20.0
PATIENCE_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the client does; see load/wsload.c.

    Attributes:
        subs: Subscribers.
        pubs: Publishers.
        window: Messages in flight.
        topics: Topics that subscribers and messages are spread over.
        filter: What subscribers ask for; `%g` is the number of the topic.
        topic: What publishers publish to.
        everything: Whether every subscriber gets every message, whatever its topic.
        rate: Messages a second; 0: as fast as `window` allows.
        acked: Whether each publisher waits for the ack of its last message instead.
        seconds: For how long; 0: only connect.
        warm_s: For how long before that, unmeasured.
    """

    subs: int = 1000
    pubs: int = 1
    window: int = 1
    topics: int = 1
    filter: str = "bench/%g"
    topic: str = "bench/%g"
    everything: bool = False
    rate: int = 0
    acked: bool = False
    seconds: float = 3.0
    warm_s: float = 0.5

    def lasting(self, seconds: float) -> Load:
        """Return the same load for another time."""
        return replace(self, seconds=seconds)

    def shorter(self) -> Load:
        """Return the same load, small and brief: does it work at all?"""
        few = max(self.topics, self.subs // 20)
        return replace(self, subs=few - few % self.topics, pubs=min(self.pubs, 50), seconds=0.3, warm_s=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Which core each process is pinned to. Brokers share the client's: the server is what is measured."""

    server: int
    client: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Take the first and the last core that this process may use."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(server=allowed[0], client=allowed[-1])


class NotStarted(Exception):
    """A server or broker ended, or did not listen in time."""


def run(contender: Contender, load: Load, cores: Cores) -> dict[str, Any]:
    """Start a contender, load it once, end it; return what wsload says, or `{"error": why}`."""
    if (why := contender.missing()) is not None:
        return {"error": why}
    try:
        with _redis(cores) if contender.redis else nullcontext() as redis, _server(contender, cores, redis) as server:
            return _load(contender, load, cores, server, redis)
    except NotStarted as error:
        return {"error": str(error)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    port: int
    pid: int


@contextmanager
def _server(contender: Contender, cores: Cores, redis: _Running | None) -> Iterator[_Running]:
    environment = {**os.environ, **({"BENCH_REDIS_URL": f"redis://127.0.0.1:{redis.port}"} if redis else {})}
    with (
        tempfile.TemporaryFile("w+") as errors,
        _process(contender.command(), cores.server, stdout=subprocess.PIPE, stderr=errors, env=environment) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            errors.seek(0)
            raise NotStarted(f"{contender.name} did not start: {(errors.read().strip().splitlines() or ['?'])[-1]}")
        yield _Running(port=int(line), pid=process.pid)


@contextmanager
def _redis(cores: Cores) -> Iterator[_Running]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    program = shutil.which("redis-server") or "redis-server"
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _process(
        [*command, "--client-output-buffer-limit", "pubsub 0 0 0"], cores.client, stdout=subprocess.DEVNULL
    ) as broker:
        until = time.monotonic() + START_S
        while not _listens(port):
            if time.monotonic() > until or broker.poll() is not None:
                raise NotStarted("redis-server did not start")
            time.sleep(0.02)
        yield _Running(port=port, pid=broker.pid)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _process(command: list[str], core: int, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, text=True, **options)
    try:
        os.sched_setaffinity(process.pid, {core})  # before it can have started threads, which inherit it
        yield process
    finally:
        process.send_signal(signal.SIGKILL)  # nothing is kept, and thousands of connections would be closed politely
        process.wait()
        if process.stdout:
            process.stdout.close()


def _load(contender: Contender, load: Load, cores: Cores, server: _Running, redis: _Running | None) -> dict[str, Any]:
    command = [str(compiled(LOAD)), *_options(contender, load), "--port", str(server.port), "--pid", str(server.pid)]
    if redis:
        command += ["--broker", str(redis.pid)]
    with _process(command, cores.client, stdout=subprocess.PIPE) as client:
        try:
            output, _ = client.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            return {"error": f"not finished after {PATIENCE_S:.0f} s"}
    return _checked(json.loads(output)) if output else {"error": f"the client ended with {client.returncode}"}


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    """Turn a run in which a delivery was lost or repeated into one that failed."""
    wrong = [f"{result[name]} {name.replace('_', ' ')}" for name in _FAULTS if result.get(name)]
    return {**result, "error": ", ".join(wrong)} if wrong else result


_FAULTS = ("lost", "twice", "stray", "lost_acks", "wrong_acks")


def _options(contender: Contender, load: Load) -> list[str]:
    speech = contender.speech
    publish = (speech.publish_acked if load.acked else speech.publish).replace("TOPIC", load.topic)
    options: dict[str, object] = {
        "path": speech.path,
        "subs": load.subs,
        "pubs": load.pubs,
        "window": load.window,
        "topics": load.topics,
        "rate": load.rate,
        "seconds": load.seconds,
        "warm": load.warm_s if load.seconds else 0,
        "sub-frames": speech.greeting_frames + 1,
        "pub-frames": speech.greeting_frames,
        "publish": publish,
    }
    if load.acked:
        options["ack"] = speech.ack
    if speech.ping:
        options["ping"], options["pong"] = speech.ping
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    for text in speech.greeting:
        arguments += ["--sub", text, "--hello", text]
    arguments += ["--sub", speech.subscribe.replace("FILTER", load.filter)]
    return [*arguments, "--everything"] if load.everything else arguments
