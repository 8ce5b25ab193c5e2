"""Broker suite: the plugin's record and the broker's URL."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable

import pytest

from dws_core.plugin import BrokerError, BrokerInterface, BrokerSpec, BrokerURL, InvalidBrokerURL, LogBroker
from dws_core.testing.suites.broker.base import BrokerBase
from dws_core.testing.suites.peers import Peer
from dws_core.testing.suites.selection import PLUGIN_PACKAGE, needs

_SECRET = "open-sesame"  # noqa: S105 -- not a real secret

_FOREIGN_IMPORTS = """
import sys
import dws_core.plugin
before = set(sys.modules)
import {module}
names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(names - set(sys.stdlib_module_names) - {{"{package}", "dws_core"}}))
"""


class BrokerRecordTests(BrokerBase):
    """The plugin's record describes its broker, and errors hide the password of the URL."""

    def test_record_offers_scheme_of_url(self, broker_spec: BrokerSpec, broker_url: str) -> None:
        assert BrokerURL.parse(broker_url).scheme in broker_spec.schemes
        assert len(set(broker_spec.schemes)) == len(broker_spec.schemes)

    def test_summary_is_one_line(self, broker_spec: BrokerSpec) -> None:
        assert broker_spec.summary.strip()
        assert "\n" not in broker_spec.summary.strip()

    def test_loaded_class_matches_record(self, broker_spec: BrokerSpec) -> None:
        """Its capabilities equal those of the record."""
        broker_class = broker_spec.load()
        assert issubclass(broker_class, BrokerInterface | LogBroker)
        assert broker_class.capabilities == broker_spec.capabilities
        assert broker_spec.load() is broker_class
        if isinstance(self.broker, type):
            assert self.broker is broker_class, "the class attribute 'broker' selects the tests of another class"

    @needs(fixture=PLUGIN_PACKAGE)
    def test_plugin_import_loads_no_third_party_module(self, broker_spec: BrokerSpec, plugin_package: str) -> None:
        script = _FOREIGN_IMPORTS.format(module=broker_spec.load.__module__, package=plugin_package)
        run = subprocess.run(  # noqa: S603 -- a fixed script in this interpreter
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.split() == [], "import slow modules in the function `load` of the record instead"

    def test_broker_repr_hides_password(
        self, broker_class: type[BrokerInterface] | type[LogBroker], broker_url: str
    ) -> None:
        url = dataclasses.replace(BrokerURL.parse(broker_url), username="user", password=_SECRET)
        try:
            broker = broker_class.from_url(url)
            shown = f"{broker} {broker!r}"
        except InvalidBrokerURL as error:
            shown = str(error)
        assert _SECRET not in shown

    def test_unknown_option_is_rejected_with_valid_ones(
        self, broker_class: type[BrokerInterface] | type[LogBroker], broker_url: str
    ) -> None:
        url = BrokerURL.parse(broker_url)
        url = dataclasses.replace(url, options={**url.options, "no_such_option": "1"})
        with pytest.raises(InvalidBrokerURL, match="no_such_option") as caught:
            broker_class.from_url(url)
        assert "valid" in caught.value.fix, "use url.read_options(…), which lists the valid options"

    @needs(fixture="unreachable_url")
    async def test_unreachable_broker_error_hides_password(
        self,
        unreachable_url: str,
        broker_class: type[BrokerInterface] | type[LogBroker],
        broker_url: str,
        make_peer: Callable[..., Peer],
    ) -> None:
        url = BrokerURL.parse(unreachable_url)
        peer = make_peer()
        peer.broker = broker_class.from_url(url)  # type: ignore[attr-defined]  # both kinds of peers have it
        with pytest.raises(BrokerError) as caught:
            await peer.open()
        assert type(caught.value).__name__ == "BrokerUnavailable"
        assert str(url) in str(caught.value)
        assert url.password is None or url.password not in str(caught.value)
        await peer.close()
