"""Clients whose connections are cut at any byte, and two nodes that are killed. One client is away too long."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.interrupted_clients import play

from dws_core._wire.cursor import parse_cursor
from dws_core.client._events import Event
from dws_core.client._state import ClientState

SEED = int(os.environ.get("DWS_SEED") or secrets.randbelow(10**6))
"""Determines where connections break. A failure shows it. Set DWS_SEED to repeat a run, except for its timing."""


async def test_cut_connections_lose_nothing_silently(tmp_path: Path) -> None:
    """Each message arrives once and in order, or a gap is reported."""
    outcome = await play(f"sqlite://{tmp_path}/dws.db?poll_s=0.05s", SEED)
    assert outcome.problems == [], outcome
    *awake, asleep = outcome.gaps
    assert not any(awake), outcome  # all messages in the history were recovered
    assert {gap.reason for gap in asleep} == {"trimmed"}, outcome
    assert min(outcome.hops) > 1, outcome
    assert sum(outcome.hops) > 40, outcome


@pytest.mark.parametrize(("patch", "problem"), [("forget-the-past", "lost"), ("ignore-keys", "repeated")])
async def test_cut_test_detects_broken_node_rule(patch: str, problem: str, tmp_path: Path) -> None:
    outcome = await play(f"sqlite://{tmp_path}/dws.db?poll_s=0.05s", SEED, patch)
    assert outcome.problems, outcome
    assert problem in outcome.problems[0], outcome


async def test_cut_test_detects_cursor_taken_before_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = ClientState._read_connected

    def broken(self: ClientState, frame: Mapping[str, Any]) -> Iterable[Event]:
        yield from read(self, frame)
        self._cursor = parse_cursor(frame["cursor"])

    monkeypatch.setitem(ClientState._READERS, "connected", broken)
    for seed in range(SEED, SEED + 5):  # on a busy machine, a run may cut no connection at the moment that matters
        outcome = await play(f"sqlite://{tmp_path}/{seed}.db?poll_s=0.05s", seed)
        if outcome.problems:
            break
    assert outcome.problems, outcome
    assert "roamer 5" in outcome.problems[0], outcome
    assert "lost" in outcome.problems[0], outcome
