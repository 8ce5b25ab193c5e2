"""Starts the servers and the load client, each pinned to a core, and ends them."""

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
TIMEOUT_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The load of a run, as options of load/wsload.c.

    Attributes:
        subs: Number of subscribers.
        pubs: Number of publishers.
        window: Maximum number of messages in flight.
        topics: Number of topics that subscribers and messages are spread over.
        filter: Filter of the subscribers, in which `%g` is the number of the topic.
        topic: Topic of the publishers, in which `%g` is the number of the topic.
        everything: Whether every subscriber receives the messages of all topics.
        rate: Messages per second. If 0, as fast as `window` allows.
        acked: Whether each publisher waits for the ack of its last message, instead of using `window`.
        seconds: Duration in seconds. If 0, the client only connects.
        warm_s: Duration of the warm-up before the measurement, in seconds.
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
        """Return the same load with another duration."""
        return replace(self, seconds=seconds)

    def shorter(self) -> Load:
        """Return a small and short version of the load, which only shows that it works."""
        few = max(self.topics, self.subs // 20)
        return replace(self, subs=few - few % self.topics, pubs=min(self.pubs, 50), seconds=0.3, warm_s=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """The cores that processes are pinned to. Brokers share the client's core, because the server is measured."""

    server: int
    client: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Return the first and the last core that this process may use."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(server=allowed[0], client=allowed[-1])


class NotStarted(Exception):
    """A server or broker ended early, or did not listen in time."""


def run(contender: Contender, load: Load, cores: Cores) -> dict[str, Any]:
    """Start a contender, run the load once, and stop it. Return the result of wsload, or `{"error": reason}`."""
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
        os.sched_setaffinity(process.pid, {core})  # set before the process starts threads, which inherit it
        yield process
    finally:
        process.send_signal(signal.SIGKILL)  # a graceful stop would close thousands of connections
        process.wait()
        if process.stdout:
            process.stdout.close()


def _load(contender: Contender, load: Load, cores: Cores, server: _Running, redis: _Running | None) -> dict[str, Any]:
    command = [str(compiled(LOAD)), *_options(contender, load), "--port", str(server.port), "--pid", str(server.pid)]
    if redis:
        command += ["--broker", str(redis.pid)]
    with _process(command, cores.client, stdout=subprocess.PIPE) as client:
        try:
            output, _ = client.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return {"error": f"not finished after {TIMEOUT_S:.0f} s"}
    return _checked(json.loads(output)) if output else {"error": f"the client ended with {client.returncode}"}


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    """Mark a run as failed if a delivery was lost, repeated or misrouted."""
    wrong = [f"{result[name]} {name.replace('_', ' ')}" for name in _FAULTS if result.get(name)]
    return {**result, "error": ", ".join(wrong)} if wrong else result


_FAULTS = ("lost", "twice", "stray", "lost_acks", "wrong_acks")


def _options(contender: Contender, load: Load) -> list[str]:
    templates = contender.templates
    publish = (templates.publish_acked if load.acked else templates.publish).replace("TOPIC", load.topic)
    options: dict[str, object] = {
        "path": templates.path,
        "subs": load.subs,
        "pubs": load.pubs,
        "window": load.window,
        "topics": load.topics,
        "rate": load.rate,
        "seconds": load.seconds,
        "warm": load.warm_s if load.seconds else 0,
        "sub-frames": templates.greeting_frames + 1,
        "pub-frames": templates.greeting_frames,
        "publish": publish,
    }
    if load.acked:
        options["ack"] = templates.ack
    if templates.ping:
        options["ping"], options["pong"] = templates.ping
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    for text in templates.greeting:
        arguments += ["--sub", text, "--hello", text]
    arguments += ["--sub", templates.subscribe.replace("FILTER", load.filter)]
    return [*arguments, "--everything"] if load.everything else arguments
