"""Six clients move between two nodes in two processes that are killed under load."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.killed_nodes import check_with_short_tokens, roam_between_killed_nodes
from support.seeds import new_seed


@pytest.mark.parametrize("patches", [(), ("read-all-from-the-broker",)], ids=["memory", "broker"])
async def test_roaming_survives_node_kill(tmp_path: Path, patches: tuple[str, ...]) -> None:
    """Each client receives each message once and in order."""
    seed, count = new_seed(), 500
    roamers = await roam_between_killed_nodes(f"sqlite://{tmp_path}/dws.db?poll_s=0.05s", seed, count, *patches)
    assert [fault for roamer in roamers for fault in roamer.violations(count)] == []
    assert all(roamer.hops > 3 for roamer in roamers)


@pytest.mark.parametrize(
    ("patches", "kinds"),
    [
        (("forget-the-past",), {"hole"}),
        (("ignore-keys",), {"repeat"}),
        (("let-live-messages-overtake", "read-all-from-the-broker"), {"hole", "order"}),
    ],
    ids=["forget-the-past", "ignore-keys", "let-live-messages-overtake"],
)
async def test_roaming_test_detects_broken_rule(tmp_path: Path, patches: tuple[str, ...], kinds: set[str]) -> None:
    seed, count = new_seed(), 400
    roamers = await roam_between_killed_nodes(f"sqlite://{tmp_path}/dws.db?poll_s=0.05s", seed, count, *patches)
    faults = [fault for roamer in roamers for fault in roamer.violations(count)]
    assert {kind for kind in kinds if any(f": {kind} in " in fault for fault in faults)}, faults


async def test_roaming_with_two_second_tokens_has_no_hole(tmp_path: Path) -> None:
    """Half of the clients refresh their tokens. The others are closed with 4002, reconnect and resume."""
    await check_with_short_tokens(f"sqlite://{tmp_path}/dws.db?poll_s=0.05s", new_seed())
