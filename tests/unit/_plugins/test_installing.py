"""Commands in errors install a plugin from where dws itself came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dws_core._plugins.installing import how_to_install, how_to_reinstall, origin_of

Install = Callable[..., Path]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Write the metadata that an installer leaves for a distribution."""

    def install(name: str, origin: dict[str, Any] | str | None) -> Path:
        folder = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
        if origin is not None:
            text = origin if isinstance(origin, str) else json.dumps(origin)
            (folder / "direct_url.json").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    return install


def _checkout(tmp_path: Path, name: str = "check out") -> Path:
    folder = tmp_path / name
    (folder / "plugins/dws_redis").mkdir(parents=True)
    return folder


def test_plugin_comes_from_index_if_dws_does(installed: Install) -> None:
    installed("dws-core", None)
    assert how_to_install("dws-redis") == "pip install dws-redis"


@pytest.mark.parametrize("editable", [True, False])
def test_plugin_comes_from_checkout_if_dws_does(installed: Install, tmp_path: Path, editable: bool) -> None:
    folder = _checkout(tmp_path)
    installed("dws-core", {"url": folder.as_uri(), "dir_info": {"editable": editable}})
    assert how_to_install("dws-redis") == f"pip install '{folder}/plugins/dws_redis'"
    assert how_to_install("dws-other") == "install dws-other as you installed dws-core"


def test_plugin_comes_from_repository_if_dws_does(installed: Install) -> None:
    url = "https://example.com/dws.git"
    installed("dws-core", {"url": url, "vcs_info": {"vcs": "git", "requested_revision": "v1", "commit_id": "abc"}})
    assert how_to_install("dws-redis") == f"pip install 'dws-redis @ git+{url}@v1#subdirectory=plugins/dws_redis'"


def test_plugin_comes_from_commit_without_a_revision(installed: Install) -> None:
    installed("dws-core", {"url": "https://example.com/dws", "vcs_info": {"vcs": "git", "commit_id": "abc"}})
    assert "@abc#" in how_to_install("dws-redis")


def test_plugin_of_a_wheel_has_no_command(installed: Install) -> None:
    """The wheel may be the only source, so a command could install a package of somebody else."""
    installed("dws-core", {"url": "file:///tmp/dws_core-9.9.whl", "archive_info": {}})
    assert how_to_install("dws-redis") == "install dws-redis as you installed dws-core"


@pytest.mark.parametrize("origin", ["not json", "[]", '{"url": 5}'])
def test_unreadable_origin_counts_as_index(installed: Install, origin: str) -> None:
    installed("dws-core", origin)
    assert how_to_install("dws-redis") == "pip install dws-redis"


def test_repair_uses_the_origin_of_the_distribution(installed: Install, tmp_path: Path) -> None:
    installed("acme-one", None)
    installed("acme-two", {"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    installed("acme-three", {"url": tmp_path.as_uri(), "dir_info": {}})
    installed("acme-four", {"url": "https://example.com/acme.whl", "archive_info": {}})
    assert how_to_reinstall("acme-one") == "pip install --force-reinstall acme-one"
    assert how_to_reinstall("acme-two") == f"pip install --force-reinstall -e {tmp_path}"
    assert how_to_reinstall("acme-three") == f"pip install --force-reinstall {tmp_path}"
    assert how_to_reinstall("acme-four") == "reinstall acme-four from https://example.com/acme.whl"


def test_unknown_distribution_has_no_origin() -> None:
    assert origin_of("acme-not-installed") == {}
