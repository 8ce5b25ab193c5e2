"""Faulty plugins as really installed packages: the printed text of each case, and that no other look-up is harmed."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest
from support.plugin_packages import install, run_python

HEAD = """
from dws_core.plugin import (
    AuthenticatorSpec, BrokerCapabilities, BrokerInterface, BrokerSpec, CodecSpec, TopicMatcherSpec, hookimpl
)
def broker(*schemes, load=lambda: BrokerInterface):
    return BrokerSpec(schemes=schemes, load=load, capabilities=BrokerCapabilities(cross_process=True), summary="Acme.")
def codec(name, load=object, **more):
    return CodecSpec(name=name, load=load, content_type="a/b", summary="Acme.", **more)
"""

HOOK = "@hookimpl\ndef dws_register_brokers(): return [broker('acme')]\n"

LOOK_UP = """
import sys
from dws_core.plugin import BrokerURL, PluginRegistry
registry = PluginRegistry()
try:
    {code}
    print("found")
except Exception as error:
    print(error)
    cause = error.__cause__
    if cause is not None:
        print("cause:", type(cause).__name__, "with traceback" if cause.__traceback__ else "without traceback")
for row in registry.rows():
    if row.plugin.name not in ("memory", "redis", "amqp", "kafka", "builtin") or row.kind in ("failed", "conflict"):
        print("row:", " | ".join((row.plugin.name, row.kind, ", ".join(row.names), row.summary)))
registry.broker_class(BrokerURL.parse("memory://"))
registry.topic_matcher("mqtt")
{healthy}
print("others work")
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A faulty plugin.

    Attributes:
        packages: For each distribution, its source and, after `---`, its entry points.
        look_up: The look-up.
        printed: The expected lines.
        healthy: Further look-ups that must work.
        environment: Environment variables.
        warning: A part of the expected log.
    """

    packages: dict[str, str]
    look_up: str = 'registry.broker_class(BrokerURL.parse("acme://host"))'
    printed: list[str] = field(default_factory=list)
    healthy: str = 'registry.codec("json")'
    environment: dict[str, str] = field(default_factory=dict)
    warning: str = ""


CASES = {
    name: Case(**{**case, "printed": case["printed"].strip().splitlines()})
    for name, case in tomllib.loads(Path(__file__).with_name("faulty_plugins.toml").read_text()).items()
}


def _shorten(line: str) -> str:
    """Leave out the installed names and the folder of the core, which differ between environments."""
    line = re.sub(r"Installed: (?:[\w+]+ \([^)]*\)(?:, | and \d+ more)?)+\.", "Installed: ….", line)
    line = re.sub(rf"dws-core {re.escape(version('dws-core'))}", "dws-core 0.1.0", line)
    return re.sub(r" \(/[^)]*plugin\.py\)", " (…)", line)


@pytest.mark.parametrize("name", CASES)
def test_faulty_plugin_is_explained_and_harms_no_other(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for distribution, text in case.packages.items():
        source, _, points = text.partition("---")
        install(tmp_path, distribution, source.replace("HEAD", HEAD, 1).replace("HOOK", HOOK), points=points)
    run = run_python(tmp_path, "-c", LOOK_UP.format(code=case.look_up, healthy=case.healthy), **case.environment)
    assert [_shorten(line) for line in run.stdout.splitlines()] == [*case.printed, "others work"], run.stderr
    assert case.warning in run.stderr
    assert case.warning or not run.stderr


def test_plugins_command_lists_conflicts_and_failures(tmp_path: Path) -> None:
    install(tmp_path, "dws-acme", f"{HEAD}{HOOK}")
    install(tmp_path, "dws-eta", "raise RuntimeError('no\\nlicence')")
    install(tmp_path, "dws-zeta", f"{HEAD}{HOOK}dws_api = 1\n")
    run = run_python(tmp_path, "-m", "dws_core", "plugins")
    assert run.returncode == 0, run.stderr
    lines = [re.sub(" +", " ", line) for line in run.stdout.splitlines()]
    assert (
        "zeta dws-zeta 1.0 conflict acme scheme 'acme' is offered by dws-acme 1.0 and by dws-zeta 1.0. "
        "Fix: uninstall one of them, or set DWS_DISABLE_PLUGINS=zeta"
    ) in lines
    assert (
        "eta dws-eta 1.0 failed - RuntimeError: no licence. "
        "Fix: repair the installation: pip install --force-reinstall dws-eta"
    ) in lines


def test_client_uses_codec_of_installed_plugin_with_options(tmp_path: Path) -> None:
    source = """
        from dataclasses import dataclass
        from dws_core.plugin import CodecSpec, hookimpl

        @dataclass(frozen=True)
        class Options:
            canonical: bool = False

        class Acme:
            name, binary = "acme", True
            def __init__(self, options): self.options = options
            def encode(self, value): return b""
            def decode(self, data): return None

        @hookimpl
        def dws_register_codecs():
            yield CodecSpec(name="acme", load=Acme, content_type="a/b", summary="Acme.", options=Options)
    """
    install(tmp_path, "dws-acme", source)
    code = """
from dws_core import WebSocketManager
from dws_core.client import Client
for codec in ("acme?canonical=yes", "acme?canonical=ja", "json?indent=2", "cbor"):
    for build in (lambda: Client("ws://host/ws", codec=codec), lambda: WebSocketManager("c", "memory://", codec=codec)):
        try:
            build()
            print("built")
        except ValueError as error:
            print(error.message.partition(" Installed")[0])
"""
    run = run_python(tmp_path, "-c", code)
    refused = [
        "option 'canonical' of codec 'acme?canonical=ja' of dws-acme 1.0 cannot be 'ja'.",
        f"codec 'json' of dws-core {version('dws-core')} has no options, but 'indent' is given.",
        "no installed plugin offers codec 'cbor'.",
    ]
    assert run.stdout.splitlines() == ["built", "built", *(text for text in refused for _ in range(2))], run.stderr
