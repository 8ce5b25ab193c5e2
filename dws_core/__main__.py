"""Inspect the installation, check a broker, connect to a node, or start a plugin.

`plugins` lists the installed plugins. `doctor URL` checks a broker. `listen URL FILTER` prints the messages of a node,
and `publish URL TOPIC DATA` publishes one. `new KIND NAME` writes the skeleton of a plugin package, and
`new broker NAME --wire` that of a broker on append-only streams.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from dws_core import _new
from dws_core._errors import BrokerUnavailable, ConfigurationError
from dws_core._log.contract import LogBroker
from dws_core._log.plain import BrokerInterface
from dws_core._log.records import BrokerState, GapReason, Head, History, Layout, Offset
from dws_core._log.records import Record as _Record
from dws_core._node.broker.plain_broker import AdaptedBroker
from dws_core._plugins.registry import PluginRegistry, default_registry
from dws_core._url import BrokerURL

if TYPE_CHECKING:
    _Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

_TIMEOUT_S: Final = 10.0
_CHANNEL: Final = "dws-doctor"
"""Channel of the test message. Always the same one, because some brokers keep something for each channel forever."""


_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 for success, 1 for failure, 2 for wrong arguments, 130 after Ctrl-C."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of the output has ended, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at the end
        return 1
    return code


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dws_core", description=__doc__)
    parser.add_argument("--version", action="version", version=f"dws-core {version('dws-core')}")
    commands = parser.add_subparsers(dest="command", required=True)
    plugins = commands.add_parser("plugins", help="list the installed plugins, and those that failed to load")
    plugins.add_argument("--json", action="store_true", help="print a list of objects")
    doctor = commands.add_parser("doctor", help="check a broker URL: connect, publish, receive")
    doctor.add_argument("url", help="URL of the broker, for example memory:// or redis://localhost:6379/0")
    _add_client_commands(commands)
    new = _add_new(commands)
    parsed = parser.parse_args(arguments)
    if parsed.command == "new" and parsed.wire and parsed.kind != "broker":
        new.error(f"--wire is an option of the kind broker, not of {parsed.kind}")
    if parsed.command in ("listen", "publish"):
        return _as_client(parsed)
    registry = default_registry()
    if parsed.command == "plugins":
        print_plugins(registry) if parsed.json else show_plugins(registry)
        return 0
    if parsed.command == "new":
        return write_plugin("wire" if parsed.wire else parsed.kind, parsed.name, parsed.into, registry)
    return asyncio.run(examine(parsed.url, registry))


def _add_client_commands(commands: _Commands) -> None:
    for name, summary, topic in (
        ("listen", "print the messages that match a filter, each as a line of JSON", "filter, for example chat/#"),
        ("publish", "publish a message", "topic, for example chat/lobby"),
    ):
        command = commands.add_parser(name, help=summary)
        command.add_argument("url", help="URL of a node, for example ws://localhost:8000/ws/me")
        command.add_argument("topic", help=topic)
        command.add_argument(
            "--token", default=os.environ.get("DWS_TOKEN"), help="bearer token of the handshake (default: $DWS_TOKEN)"
        )
        if name == "publish":
            command.add_argument("data", help="JSON value, or any other text to send as a string")
            forms = command.add_mutually_exclusive_group()
            for form, meaning in (("json", "the data must be JSON"), ("text", "send the data as a string")):
                forms.add_argument(
                    f"--{form}", dest="form", action="store_const", const=form, default="auto", help=meaning
                )
        else:
            command.add_argument("--count", type=_count, help="number of messages after which to exit")


def _add_new(commands: _Commands) -> argparse.ArgumentParser:
    new = commands.add_parser("new", help="write the skeleton of a plugin package, with its conformance tests")
    new.add_argument("kind", choices=[kind for kind in _new.KINDS if kind != "wire"], help="kind of plugin")
    new.add_argument("name", help="scheme or name by which applications choose it. The package becomes dws-NAME")
    new.add_argument("--wire", action="store_true", help="write a broker for a system that keeps append-only streams")
    new.add_argument("--into", type=Path, default=Path(), metavar="DIR", help="folder of the new folder dws-NAME")
    return new


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of messages, such as 0 or 10")
    return int(text)


def _as_client(parsed: argparse.Namespace) -> int:
    from dws_core.client import _commands as commands  # noqa: PLC0415 -- the other commands do not need it

    if parsed.command == "publish":
        return asyncio.run(
            commands.publish(parsed.url, parsed.topic, parsed.data, token=parsed.token, form=parsed.form)
        )
    with suppress(KeyboardInterrupt):
        return asyncio.run(commands.listen(parsed.url, parsed.topic, token=parsed.token, count=parsed.count))
    return 0


def show_plugins(registry: PluginRegistry) -> None:
    """Print one line for each record that a plugin offers, then conflicts and failures."""
    lines = [("plugin", "distribution", "kind", "names", "summary")]
    lines += [(r.plugin.name, str(r.plugin), r.kind, ", ".join(r.names) or "-", r.summary) for r in registry.rows()]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)) + "  " + line[4])


def print_plugins(registry: PluginRegistry) -> None:
    """Print the records of all plugins as JSON."""
    rows = [
        {"plugin": r.plugin.name, "distribution": str(r.plugin), "kind": r.kind, "names": r.names, "summary": r.summary}
        for r in registry.rows()
    ]
    print(json.dumps(rows, indent=2))


def write_plugin(kind: str, name: str, into: Path, registry: PluginRegistry) -> int:
    """Write the skeleton of a plugin, and print the next commands. Return 0, or 1 if it was not written."""
    try:
        folder = _new.write_skeleton(kind, name, into, registry)
    except ConfigurationError as error:
        print(f"FAILED  {error}", file=sys.stderr)
        return 1
    print(f"wrote {folder}. Next:\n\n{_new.next_steps(folder)}")
    return 0


async def examine(url: str, registry: PluginRegistry) -> int:
    """Check a broker step by step and print each step. Return 0 if all steps succeed, 1 otherwise."""
    step = "parse"
    try:
        parsed = BrokerURL.parse(url)
        _ok(step, str(parsed))
        step = "plugin"
        spec = registry.broker_spec(parsed.scheme, where=parsed)
        _ok(step, spec.summary)
        step = "load"
        broker_class = registry.broker_class(parsed)
        _ok(step, f"{broker_class.__module__}.{broker_class.__qualname__}, {spec.capabilities}")
        step = "options"
        broker = broker_class.from_url(parsed)
        _ok(step, "valid")
        step = "publish and receive"
        async with asyncio.timeout(_TIMEOUT_S):
            await _round_trip(broker)
        _ok(step, "one message sent and received")
    except TimeoutError:
        print(f"FAILED  {step}: no reply within {_TIMEOUT_S:g} s. Fix: check that the broker runs and is reachable")
    except Exception as error:  # noqa: BLE001 -- every failure is reported
        print(f"FAILED  {step}: {error if str(error) else repr(error)}")
    else:
        return 0
    return 1


def _ok(step: str, detail: str) -> None:
    print(f"ok      {step}: {detail}")


class _Probe:
    """A sink that waits for one record."""

    def __init__(self) -> None:
        self.arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_records(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[_Record]) -> None:
        if any(record.topic == "dws/doctor" for record in records) and not self.arrived.done():
            self.arrived.set_result(None)

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        if not self.arrived.done():
            self.arrived.set_exception(BrokerUnavailable(f"the node lost its place in the log: {reason}."))

    def on_control(self, sender: bytes, payload: bytes) -> None: ...

    def on_state(self, state: BrokerState, detail: str) -> None: ...


async def _round_trip(broker: BrokerInterface | LogBroker) -> None:
    log = broker if isinstance(broker, LogBroker) else AdaptedBroker(broker)
    sink = _Probe()
    layout = Layout(channel=_CHANNEL, partitions=1)
    await log.start(node=os.urandom(8), layout=layout, sink=sink)
    try:
        await log.set_interest(frozenset({0}))
        await log.publish(0, "dws/doctor", b"1 json\n1", history=History(size=1, ttl_s=10))
        await sink.arrived
    finally:
        await log.stop()


if __name__ == "__main__":
    sys.exit(main())
