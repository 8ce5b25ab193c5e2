"""`python -m dws_core new`."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from dws_core import ConfigurationError
from dws_core.__main__ import main
from dws_core._new import KINDS, MAX_NAME, Names, read_name, skeleton, write_skeleton
from dws_core._plugins.registry import PluginRegistry, default_registry


@pytest.mark.parametrize("text", ["my-codec", "My_Codec", "my.codec", "my--codec", "dws-my-codec", "dws_my_codec"])
def test_name_is_normalized(text: str) -> None:
    names = read_name(text)
    assert names == Names("my-codec")
    assert (names.distribution, names.package, names.class_prefix) == ("dws-my-codec", "dws_my_codec", "MyCodec")


@pytest.mark.parametrize("text", ["", "9lives", "-x", "x-", "a b", "../x", "x/y", "é", "dws-", "a\n", "K\u212a"])
def test_invalid_name_is_rejected(text: str) -> None:
    with pytest.raises(ConfigurationError, match="Fix: use letters"):
        read_name(text)


def test_long_name_is_rejected() -> None:
    assert read_name("x" * MAX_NAME).name == "x" * MAX_NAME
    with pytest.raises(ConfigurationError, match="31 characters"):
        read_name("x" * (MAX_NAME + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_skeleton_is_a_complete_package(kind: str) -> None:
    files = skeleton(kind, Names("my-thing"))
    expected = {"LICENSE", "README.md", "pyproject.toml", ".gitignore", ".github/workflows/tests.yml"}
    expected |= {f"src/dws_my_thing/{name}" for name in ("__init__.py", "py.typed")}
    assert expected | {"tests/test_conformance.py", "tests/test_in_use.py"} < set(files)
    for path, text in files.items():
        assert "acme" not in (path + text).lower(), path
        if path.endswith(".py"):
            ast.parse(text)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["name"] == "dws-my-thing"
    assert project["entry-points"] == {"dws_core": {"my-thing": "dws_my_thing"}}
    assert KINDS[kind].label in project["description"]


def test_name_with_template_word_is_filled_in_once() -> None:
    files = skeleton("codec", Names("acme-json"))
    assert "src/dws_acme_json/__init__.py" in files
    assert "class AcmeJsonCodec:" in files["src/dws_acme_json/_codec.py"]
    assert 'name = "dws-acme-json"' in files["pyproject.toml"]


def test_skeleton_is_written_into_new_folder(tmp_path: Path) -> None:
    folder = write_skeleton("codec", "reversed", tmp_path, default_registry())
    assert folder == tmp_path / "dws-reversed"
    written = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert written == skeleton("codec", Names("reversed"))


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_existing_folder_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    existing = tmp_path / "dws-reversed"
    if kind == "folder":
        existing.mkdir()
    else:
        existing.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"exists already\. Nothing was written\. Fix: "):
        write_skeleton("codec", "reversed", tmp_path, default_registry())
    assert [*existing.iterdir()] == [] if kind == "folder" else existing.read_text() == "mine"


def test_missing_parent_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a folder\. Fix: create it"):
        write_skeleton("codec", "reversed", tmp_path / "missing", default_registry())
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("codec", "json", "codec 'json' is offered by dws-core"),
        ("broker", "memory", "scheme 'memory' is offered by dws-memory"),
        ("matcher", "mqtt", "topic matcher 'mqtt' is offered by dws-core"),
        ("authenticator", "oauth2-bearer", "authenticator 'oauth2-bearer' is offered by dws-core"),
        ("codec", "core", "distribution dws-core .* is installed already"),
    ],
)
def test_taken_name_is_rejected(tmp_path: Path, kind: str, name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        write_skeleton(kind, name, tmp_path, PluginRegistry())
    assert [*tmp_path.iterdir()] == []


def test_new_command_prints_next_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "matcher", "glob", "--into", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for line in (f"cd {tmp_path / 'dws-glob'}", 'python -m pip install -e ".[dev]"', "python -m pytest"):
        assert f"\n{line}\n" in out


def test_new_command_reports_failure_with_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "codec", "9lives", "--into", str(tmp_path)]) == 1
    assert "FAILED  plugin name '9lives' is invalid. Fix: use letters" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["new", "nonsense", "x"])
    assert caught.value.code == 2


def test_wire_option_writes_stream_broker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "broker", "ledger", "--wire", "--into", str(tmp_path)]) == 0
    assert "class LedgerWire(StreamWire):" in (tmp_path / "dws-ledger/src/dws_ledger/_broker.py").read_text()
    assert "BrokerConformance" in (tmp_path / "dws-ledger/tests/test_conformance.py").read_text()
    assert main(["new", "broker", "plain", "--into", str(tmp_path)]) == 0
    assert "Wire" not in (tmp_path / "dws-plain/src/dws_plain/_broker.py").read_text()


@pytest.mark.parametrize("arguments", [["codec", "x", "--wire"], ["wire", "x"]])
def test_wire_option_is_for_brokers_only(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["new", *arguments, "--into", str(tmp_path)])
    assert caught.value.code == 2
    assert [*tmp_path.iterdir()] == []
