"""The generated parts of the docs agree with the code. Run `nox -s docs` to rewrite them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from generate import BLOCK, TABLES, render

from dws_core import plugin
from dws_core.plugin import BrokerCapabilities, BrokerSpec
from generator.brokers import BROKERS, broker_column
from generator.contract import GROUPS, contract

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]


def test_generated_tables_are_current() -> None:
    for page in PAGES:
        text = page.read_text()
        assert render(text) == text, f"{page.relative_to(ROOT)} is outdated. Fix: run `nox -s docs`"


def test_each_table_is_in_one_page() -> None:
    texts = [page.read_text() for page in PAGES]
    found = [name for text in texts for _, name, _ in BLOCK.findall(text)]
    assert sorted(found) == sorted(TABLES)
    assert len(found) == sum(text.count("<!-- generated: ") for text in texts), "a marker has no end"


def test_outdated_table_is_rewritten() -> None:
    page = "before\n<!-- generated: limits -->\n| old |\n<!-- end generated -->\nafter\n"
    rendered = render(page)
    assert "| old |" not in rendered
    assert "| `burst` | 200 | `rate-limited` |" in rendered
    assert rendered.startswith("before\n")
    assert rendered.endswith("<!-- end generated -->\nafter\n")
    assert render(rendered) == rendered


def test_unknown_table_is_rejected() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        render("<!-- generated: nonsense -->\n<!-- end generated -->\n")


def test_broker_without_log_has_no_log_features() -> None:
    capabilities = BrokerCapabilities(cross_process=True)
    spec = BrokerSpec(schemes=("acme",), load=lambda: type(None), capabilities=capabilities, summary="Acme.")  # type: ignore[arg-type,return-value]
    column = broker_column(spec)
    assert column["stored messages survive"] == "nothing"
    assert column["clients recover missed messages"] == "no"
    assert column["connects several processes"] == "yes"
    assert column["gaps are exact"] == column["maximum topic"] == "-"


def test_every_plugin_is_in_the_tables() -> None:
    """A broker without a row would not be found by users."""
    plugins = {path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")}
    assert plugins | {"dws_sqlite"} == set(BROKERS)
    for choice in BROKERS.values():
        assert not choice.page or (ROOT / choice.page).exists()


def test_measured_rates_are_those_of_the_performance_page() -> None:
    page = (ROOT / "docs/explanation/performance.md").read_text()
    for choice in BROKERS.values():
        if choice.publishes != "-":
            assert f"{int(choice.publishes.replace(',', '')) // 1000} k" in page


def test_contract_describes_every_public_name() -> None:
    names = [name for group, _ in GROUPS.values() for name in group.split()]
    assert sorted(names) == sorted(plugin.__all__)
    sections = re.findall(r"^### `(\w+)`$", contract(), re.MULTILINE)
    assert sections == names


def test_contract_has_prose_and_no_private_paths() -> None:
    page = contract()
    assert not re.search(r"dws_core[./]_", page)
    assert not re.search(r"```\n\n#", page), "a name has no docstring"


def test_contract_has_a_purpose_for_each_helper() -> None:
    table = (ROOT / "docs/reference/plugin-contract.md").read_text().partition("<!-- generated")[0]
    for name in GROUPS["Helpers"][0].split():
        assert f"(#{name.lower()})" in table, f"{name} is not in the table of helpers"
