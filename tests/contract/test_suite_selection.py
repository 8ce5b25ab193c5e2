"""The broker suite collects the tests that can run for a broker, and reports what its author can add."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from support.other_repository import RUN_S, run_pytest

pytestmark = pytest.mark.timeout(RUN_S)

HEAD = """
import pytest
from dws_memory import MemoryBroker
from dws_core.plugin import BrokerCapabilities, BrokerInterface
from dws_core.testing import BrokerConformance, BrokerFaults


class Plain(BrokerInterface):
    capabilities = BrokerCapabilities(cross_process=False)

    async def deliveries(self):
        yield


class Unordered(Plain):
    capabilities = BrokerCapabilities(cross_process=False, ordering="none")


class Wipes(BrokerFaults):
    async def wipe(self):
        raise AssertionError("not called while tests are collected")


@pytest.fixture
def name():
    return "selection"
"""
MEMORY = """
class TestMemory(BrokerConformance):
    @pytest.fixture
    def broker_url(self):
        return "memory://selection"
"""
DYNAMIC = """
class TestMemory(BrokerConformance):
    @pytest.fixture
    def broker_url(self, name):
        return f"memory://{name}"
"""
"""A suite whose URL is not known when tests are collected."""

FOR_LOGS = "test_stored_records_can_be_read"
FOR_PLAIN = "test_repeated_subscribe_delivers_once"
FOR_BOTH = "test_any_bytes_arrive_unchanged"


def collect(folder: Path, suite: str, *options: str) -> tuple[set[str], str]:
    """Return the names of the collected tests, without parameters, and the last lines of the output."""
    write(folder, suite)
    run = run_pytest(folder, "-q", "--collect-only", *options)
    assert run.returncode in (0, 5), run.stdout + run.stderr
    return set(re.findall(r"::(test_\w+)", run.stdout)), run.stdout.rpartition("\n\n")[2]


def write(folder: Path, suite: str) -> None:
    (folder / "test_conformance.py").write_text(HEAD + suite)


def member(text: str) -> str:
    return textwrap.indent(textwrap.dedent(text), "    ")


def test_log_suite_has_no_tests_for_plain_brokers(tmp_path: Path) -> None:
    found, _ = collect(tmp_path, MEMORY)
    assert {FOR_LOGS, FOR_BOTH} <= found
    assert FOR_PLAIN not in found
    assert "test_other_process_is_received_through_log" not in found, "not promised: cross_process"


def test_plain_suite_has_no_tests_for_logs(tmp_path: Path) -> None:
    found, _ = collect(tmp_path, "class TestPlain(BrokerConformance):\n    broker = Plain\n")
    assert {FOR_PLAIN, FOR_BOTH} <= found
    assert FOR_LOGS not in found
    assert "test_all_nodes_see_one_order_if_promised" not in found, "not promised: ordering=total"


def test_unordered_suite_has_no_tests_that_need_an_order(tmp_path: Path) -> None:
    found, _ = collect(tmp_path, "class TestPlain(BrokerConformance):\n    broker = Unordered\n")
    assert "test_concurrent_publishers_lose_nothing" in found
    assert not {FOR_PLAIN, FOR_BOTH, "test_channels_are_separate"} & found


def test_tests_of_missing_package_are_not_collected(tmp_path: Path) -> None:
    hidden = """
    import importlib.util
    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "hypothesis" else find_spec(name, *rest)
    """
    found, summary = collect(tmp_path, textwrap.dedent(hidden) + MEMORY)
    assert "test_clients_changing_nodes_receive_each_record_once" in found
    assert "test_roaming_clients_receive_every_record_or_gap" not in found
    assert "pip install hypothesis (1)" in summary


def test_broker_that_is_no_package_has_no_test_of_imports(tmp_path: Path) -> None:
    spec = """
    @pytest.fixture
    def broker_spec(self):
        load = lambda: MemoryBroker
        load.__module__ = "not_installed"
        return BrokerSpec(schemes=("memory",), load=load, capabilities=MemoryBroker.capabilities, summary="A test.")
    """
    found, summary = collect(tmp_path, "from dws_core.plugin import BrokerSpec\n" + MEMORY + member(spec))
    assert FOR_LOGS in found
    assert "test_plugin_import_loads_no_third_party_module" not in found
    assert "plugin_package" not in summary


def test_faults_select_their_tests(tmp_path: Path) -> None:
    fault = "@pytest.fixture\ndef fault(self): return Older()\n"
    older = """
    class Older(BrokerFaults):
        def snapshot(self): ...
        def set_back(self): ...
    """
    found, summary = collect(tmp_path, textwrap.dedent(older) + MEMORY + member(fault))
    assert "test_log_that_was_set_back_starts_new_epoch" in found
    assert "test_publish_without_reply_has_unknown_outcome" not in found
    assert "fault.freeze() (" in summary


def test_collected_tests_are_not_skipped(tmp_path: Path) -> None:
    write(tmp_path, MEMORY)
    run = run_pytest(tmp_path, "-q", "-k", "subscribe or order or interest")
    assert run.returncode == 0, run.stdout
    assert "skipped" not in run.stdout
    assert "deselected" in run.stdout


# -- what the author can add


def test_missing_fixtures_are_reported_in_one_line(tmp_path: Path) -> None:
    _, summary = collect(tmp_path, MEMORY)
    assert (
        "TestMemory leaves out 28 test(s) that need: fault (25), sever (1), count_operations (1), unreachable_url (1). "
        "Fix: define them, or set those to None that the broker cannot have"
    ) in summary


@pytest.mark.parametrize(
    "absent",
    [
        "fault = sever = count_operations = unreachable_url = None",
        "\n".join(
            f"@pytest.fixture\ndef {name}(self) -> None: return None\n"
            for name in ("fault", "sever", "count_operations", "unreachable_url")
        ),
    ],
    ids=["attribute", "fixture"],
)
def test_absent_fixtures_are_not_reported(tmp_path: Path, absent: str) -> None:
    found, summary = collect(tmp_path, MEMORY + member(absent))
    assert FOR_LOGS in found
    assert "leaves out" not in summary


def test_only_chosen_tests_are_reported(tmp_path: Path) -> None:
    _, summary = collect(tmp_path, MEMORY, "-k", FOR_BOTH)
    assert "leaves out" not in summary


@pytest.mark.parametrize(
    "fault",
    ["def fault(self) -> BrokerFaults: return Wipes()", "def fault(self, name) -> Wipes: return Wipes()"],
    ids=["value", "annotation"],
)
def test_overridden_faults_select_tests(tmp_path: Path, fault: str) -> None:
    found, summary = collect(tmp_path, MEMORY + member(f"@pytest.fixture\n{fault}\n"))
    assert "test_wiped_log_starts_new_epoch_on_every_node" in found
    assert "test_frozen_broker_is_noticed_and_loses_nothing" not in found
    assert "fault.freeze() (" in summary
    assert "fault (" not in summary


def test_fault_set_to_none_is_not_reported(tmp_path: Path) -> None:
    fault = "@pytest.fixture\ndef fault(self): return Wipes()\n"
    _, summary = collect(tmp_path, f"Wipes.freeze = None\n{MEMORY}{member(fault)}")
    assert "fault.restart() (" in summary
    assert "freeze" not in summary


# -- which broker it is


def test_unknown_broker_is_reported_and_skips(tmp_path: Path) -> None:
    found, summary = collect(tmp_path, DYNAMIC)
    assert {FOR_PLAIN, FOR_LOGS} <= found
    assert "TestMemory skips tests that are for other brokers. Fix: add `broker = " in summary
    run = run_pytest(tmp_path, "-q", "-rs", "-k", FOR_PLAIN)
    assert "for a BrokerInterface" in run.stdout


def test_class_attribute_names_broker(tmp_path: Path) -> None:
    found, summary = collect(tmp_path, DYNAMIC + member("broker = MemoryBroker"))
    assert FOR_LOGS in found
    assert FOR_PLAIN not in found
    assert "Fix: add" not in summary


def test_class_attribute_of_other_broker_fails(tmp_path: Path) -> None:
    write(tmp_path, MEMORY + member("broker = Plain"))
    run = run_pytest(tmp_path, "-q", "-k", "loaded_class")
    assert run.returncode == 1
    assert "the class attribute 'broker' selects the tests of another class" in run.stdout


def test_option_lists_left_out_tests(tmp_path: Path) -> None:
    write(tmp_path, MEMORY)
    run = run_pytest(tmp_path, "-q", "--collect-only", "--dws-show-deselected")
    assert f"::{FOR_PLAIN}: for a BrokerInterface" in run.stdout
    assert "::test_other_process_is_received_through_log: not promised: cross_process" in run.stdout
    assert "::test_wiped_log_starts_new_epoch_on_every_node: no fixture 'fault'" in run.stdout
