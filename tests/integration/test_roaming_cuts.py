"""Clients whose connections are cut at any byte, between two nodes that are killed; one sleeps longer than history reaches."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.interrupted_clients import play

from dws_core._wire.cursor import parse_cursor
from dws_core.client._state import ClientState, Event

SEED = int(os.environ.get("DWS_SEED") or secrets.randbelow(10**6))
"""Decides where connections break; a failure shows it. Set DWS_SEED to repeat a run as far as the clock allows."""


async def test_whatever_is_cut_everything_comes_once_in_order_or_a_gap_is_told(tmp_path: Path) -> None:
    outcome = await play(f"sqlite://{tmp_path}/dws.db?poll_s=0.05s", SEED)
    assert outcome.problems == [], outcome
    *awake, asleep = outcome.gaps
    assert not any(awake), outcome  # what was kept was recovered
    assert {gap.reason for gap in asleep} == {"trimmed"}, outcome
    assert min(outcome.hops) > 1, outcome
    assert sum(outcome.hops) > 40, outcome


@pytest.mark.parametrize(("patch", "problem"), [("forget-the-past", "lost"), ("ignore-keys", "twice")])
async def test_a_node_that_breaks_a_rule_is_noticed(patch: str, problem: str, tmp_path: Path) -> None:
    outcome = await play(f"sqlite://{tmp_path}/dws.db?poll_s=0.05s", SEED, patch)
    assert outcome.problems, outcome
    assert problem in outcome.problems[0], outcome


async def test_a_client_that_takes_the_cursor_before_the_gap_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ClientState._read_connected

    def broken(self: ClientState, frame: Mapping[str, Any]) -> Iterable[Event]:
        yield from read(self, frame)
        self._cursor = parse_cursor(frame["cursor"])

    monkeypatch.setitem(ClientState._READERS, "connected", broken)
    outcome = await play(f"sqlite://{tmp_path}/dws.db?poll_s=0.05s", SEED)
    assert outcome.problems, outcome
    assert "roamer 5" in outcome.problems[0], outcome
    assert "lost" in outcome.problems[0], outcome
