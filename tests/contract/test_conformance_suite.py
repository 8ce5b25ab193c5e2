"""The conformance suites detect every flaw, pass correct plugins, and allow no silent opt-out."""

from __future__ import annotations

import re
import shutil
import textwrap
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest
from support.other_repository import RUN_S, run_pytest

BROKEN = Path(__file__).with_name("broken")
CORRECT = {
    "TestCorrectLogBroker": "broken_logs.py",
    "TestRepeatsControls": "broken_logs.py",
    "TestCorrectUnderFaults": "broken_under_faults.py",
    "TestCorrectSmallBroker": "broken_small_brokers.py",
    "TestCorrectInterruptedBroker": "broken_small_brokers.py",
    "TestCorrectCodec": "broken_codecs.py",
    "TestCorrectMatcher": "broken_matchers.py",
    "TestCorrectAuthenticator": "broken_authenticators.py",
}
HANG_S = 300.0
"""Seconds that a test of a flawed plugin may take."""

pytestmark = pytest.mark.timeout(RUN_S + HANG_S)  # the first test of a file includes one run of that file


def find_flaws() -> dict[str, tuple[str, str, str]]:
    """Return for each suite class in the folder its file, the test that must detect the flaw, and a part of its text."""
    decorated = re.compile(r'^@flawed_\w+\(\s*"(test_\w+)"(?:,\s*"([^"]+)",?)?\s*\)\nclass (\w+)', re.MULTILINE)
    return {
        f"Test{name}": (path.name, test, text)
        for path in sorted(BROKEN.glob("*.py"))
        for test, text, name in decorated.findall(path.read_text())
    }


FLAWS = find_flaws()


def test_flaws_are_found_in_folder() -> None:
    assert len(FLAWS) >= 100


Outcomes: TypeAlias = dict[str, dict[str, str]]
"""By the name of a suite's class and of a test: how it ended."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcomes]:
    """Return the outcomes of a file. The first call for a file runs it."""

    @cache
    def outcomes_of(file: str) -> Outcomes:
        return run_file(file, tmp_path_factory.mktemp("broken"))

    return outcomes_of


def run_file(file: str, folder: Path) -> Outcomes:
    """Run each flawed plugin with the test that must detect the flaw, and each correct plugin with all tests."""
    shutil.copytree(BROKEN, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    chosen = [f"{file}::{name}::{test}" for name, (found, test, _) in FLAWS.items() if found == file]
    chosen += [f"{file}::{name}" for name, found in CORRECT.items() if found == file]
    run = run_pytest(folder, "-q", "--tb=short", "--junitxml=result.xml", *chosen, each_s=HANG_S)
    assert run.returncode == 1, run.stdout + run.stderr
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ET.parse(folder / "result.xml").iter("testcase"):
        name = case.attrib["classname"].rpartition(".")[2]
        kinds = {child.tag for child in case}
        outcome = next((kind for kind in ("failure", "error", "skipped") if kind in kinds), "passed")
        detail = next((f"{child.get('message', '')} {child.text or ''}" for child in case), "")
        before = found[name].get(case.attrib["name"], "")  # a test that fails and cannot be torn down has two cases
        found[name][case.attrib["name"]] = f"{before} {outcome} {detail}".strip()
    return found


@pytest.mark.parametrize("name", FLAWS)
def test_flaw_is_detected(name: str, outcomes: Callable[[str], Outcomes]) -> None:
    file, _, text = FLAWS[name]
    seen = outcomes(file)[name]
    assert seen, "the test ran"
    failures = [outcome for outcome in seen.values() if outcome.startswith(("failure", "error"))]
    assert failures, seen
    assert text in " ".join(failures), "the suite explains the flaw"
    assert not any(f"Timeout (>{HANG_S}s)" in outcome for outcome in seen.values()), (
        "the suite says it, and never hangs"
    )


@pytest.mark.parametrize("name", CORRECT)
def test_correct_plugin_passes(name: str, outcomes: Callable[[str], Outcomes]) -> None:
    seen = outcomes(CORRECT[name])[name]
    assert len(seen) > 8
    assert sum(outcome == "passed" for outcome in seen.values()) > 8
    assert {test: o for test, o in seen.items() if not o.startswith(("passed", "skipped"))} == {}


# -- in another repository


def write_test(folder: Path, body: str) -> Path:
    path = folder / "test_conformance.py"
    head = """
        import pytest
        from dws_core.testing import BrokerConformance, CodecConformance, requires_service
        from dws_core._wire.codecs import JSONCodec
    """
    path.write_text(textwrap.dedent(head) + textwrap.dedent(body))
    return path


CODEC_SUITE = """
class TestJSON(CodecConformance):
    @pytest.fixture
    def codec(self):
        return JSONCodec()
"""


def test_other_repository_needs_only_pytest_and_anyio(tmp_path: Path) -> None:
    write_test(
        tmp_path,
        """
        class TestMemory(BrokerConformance):
            @pytest.fixture
            def broker_url(self):
                return "memory://foreign"
        """,
    )
    run = run_pytest(tmp_path, "-q", "-W", "error")
    assert run.returncode == 0, run.stdout
    assert "failed" not in run.stdout


def test_failure_in_other_repository_shows_values(tmp_path: Path) -> None:
    write_test(
        tmp_path,
        """
        class Flawed(JSONCodec):
            name = "not a token"

        class TestFlawed(CodecConformance):
            @pytest.fixture
            def codec(self):
                return Flawed()
        """,
    )
    run = run_pytest(tmp_path, "-q", "-k", "subprotocol")
    assert run.returncode == 1
    assert "re.Pattern object" in run.stdout, "the assertion explains itself"


def test_missing_fixture_is_explained(tmp_path: Path) -> None:
    write_test(tmp_path, "class TestNothing(BrokerConformance): pass")
    run = run_pytest(tmp_path, "-q", "-k", "scheme")
    assert "Fix: define it in your subclass" in run.stdout


def test_unknown_scheme_is_explained(tmp_path: Path) -> None:
    write_test(
        tmp_path,
        """
        class TestTypo(BrokerConformance):
            @pytest.fixture
            def broker_url(self):
                return "memroy://x"
        """,
    )
    run = run_pytest(tmp_path, "-q", "-k", "scheme")
    assert "Did you mean 'memory'" in run.stdout, run.stdout


# -- opting out


OPT_OUTS = {
    "NotMarked": ("def test_codec_works_in_several_threads(self): pass", "it is not marked xfail"),
    "Deleted": ("test_codec_works_in_several_threads = None", "it is not marked xfail"),
    "NotStrict": (
        '@pytest.mark.xfail(reason="slow")\n    def test_codec_works_in_several_threads(self): assert 0',
        "its mark is not strict",
    ),
    "NoReason": (
        "@pytest.mark.xfail(strict=True)\n    def test_codec_works_in_several_threads(self): assert 0",
        "its mark has no reason",
    ),
    "Condition": (
        '@pytest.mark.xfail(True, reason="x", strict=True)\n    def test_codec_works_in_several_threads(self): assert 0',
        "its mark has a condition",
    ),
    "WholeClass": ('pytestmark = pytest.mark.xfail(reason="all", strict=True)', "the whole class is marked xfail"),
}


def test_silent_opt_out_fails(tmp_path: Path) -> None:
    suites = [CODEC_SUITE.replace("TestJSON", f"Test{n}") + f"\n    {text}\n" for n, (text, _) in OPT_OUTS.items()]
    write_test(tmp_path, "".join(suites))
    run = run_pytest(tmp_path, "-q", "--runxfail", "-k", "every_standard_test")
    assert f"{len(OPT_OUTS)} failed" in run.stdout
    for name, (_, complaint) in OPT_OUTS.items():
        report = run.stdout.partition(f" Test{name}.test_every_standard_test_is_kept ")[2]
        assert complaint in report[: report.index("_conformance.py:")], name


def test_opt_out_with_reason_is_shown(tmp_path: Path) -> None:
    override = """
    @pytest.mark.xfail(reason="one thread only, see issue 7", strict=True)
    def test_codec_works_in_several_threads(self, codec):
        raise RuntimeError("as said")
    """
    write_test(tmp_path, CODEC_SUITE + override)
    run = run_pytest(tmp_path, "-q", "-rx")
    assert run.returncode == 0, run.stdout
    assert "one thread only, see issue 7" in run.stdout


def test_keeper_test_cannot_be_replaced(tmp_path: Path) -> None:
    write_test(tmp_path, CODEC_SUITE + "\n    def test_every_standard_test_is_kept(self): pass\n")
    run = run_pytest(tmp_path, "-q")
    assert run.returncode == 4
    assert "replaces test_every_standard_test_is_kept" in run.stderr


# -- services


SERVICE = """
@requires_service("nats://127.0.0.1:1")
class TestNats(BrokerConformance):
    @pytest.fixture
    def broker_url(self):
        return "nats://127.0.0.1:1"
"""


def test_unavailable_service_skips(tmp_path: Path) -> None:
    write_test(tmp_path, SERVICE)
    run = run_pytest(tmp_path, "-q", "-rs", DWS_REQUIRE_SERVICES="")
    assert run.returncode == 0, run.stdout
    assert "no server responds at nats://127.0.0.1:1" in run.stdout
    assert " passed" not in run.stdout


def test_required_service_fails_if_unavailable(tmp_path: Path) -> None:
    write_test(tmp_path, SERVICE)
    run = run_pytest(tmp_path, "-q", DWS_REQUIRE_SERVICES="redis,nats")
    assert run.returncode == 1
    assert "DWS_REQUIRE_SERVICES, which contains nats" in run.stdout


def test_unrelated_test_run_is_not_affected(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import sys\n"
        "class TestOwn:\n"
        "    def test_nothing_is_imported_for_it(self):\n"
        "        assert 'dws_core.testing.suites.conformance' not in sys.modules\n"
    )
    run = run_pytest(tmp_path, "-q", "-W", "error")
    assert run.returncode == 0, run.stdout
    assert "1 passed" in run.stdout
