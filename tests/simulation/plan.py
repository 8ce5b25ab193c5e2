"""What happens in a run: a list of steps, made from a seed. A failing list is made shorter by leaving out steps."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

Step: TypeAlias = tuple[float, str, tuple[int | float | bool, ...]]
"""Time in seconds, name of a method of `World`, arguments."""

NODES = 2
FAULT_S = 12.0
"""Faults happen in this time. After that, everything is healed."""


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        seed: Seed of everything that is random during the run.
        quiet: Whether the broker reports no offsets and no bounds.
        identity: Whether its bounds have an identity.
        strict: Whether a start beyond the end raises.
        controls: Whether control messages have their own way.
        partitions: Number of streams.
        age_s: Age of the streams when the steps begin, in seconds.
        steps: What happens, by time.
    """

    seed: int
    quiet: bool
    identity: bool
    strict: bool
    controls: bool
    partitions: int
    age_s: float
    steps: tuple[Step, ...]

    @property
    def loses(self) -> bool:
        """Whether the broker loses data, so that gaps are justified."""
        return any(name in {"set_back", "replace", "trim", "lag", "garbage"} for _, name, _ in self.steps)

    def __str__(self) -> str:
        head = f"Plan(seed={self.seed}, quiet={self.quiet}, identity={self.identity}, strict={self.strict}, "
        head += f"controls={self.controls}, partitions={self.partitions}, age_s={self.age_s})"
        return "\n  ".join([head, *(f"{at:6.3f}  {name}{arguments}" for at, name, arguments in self.steps)])


def make_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    rng = random.Random(seed)
    steps: list[Step] = []
    for _ in range(rng.randrange(15, 35)):
        steps.append((rng.uniform(0, FAULT_S), "publish", _publish(rng)))
    for _ in range(rng.randrange(1, 4)):
        steps.append((rng.uniform(0, FAULT_S), "burst", (rng.randrange(NODES), rng.randrange(4), rng.randrange(2, 12))))
    for client in range(2):
        for _ in range(rng.randrange(1, 4)):
            steps.append((rng.uniform(0.5, FAULT_S + 2), "hop", (client, rng.randrange(NODES))))
    for _ in range(rng.choice((0, 1, 2, 3, 4, 6, 9, 13))):
        steps.append((rng.uniform(0.2, FAULT_S), *_fault(rng)))
    if rng.random() < 0.3:
        steps.append((rng.uniform(0, FAULT_S), "control", (rng.randrange(NODES),)))
    quiet = rng.random() < 0.4
    return Plan(
        seed=seed,
        quiet=quiet,
        identity=rng.random() < 0.7,
        strict=rng.random() < 0.5,
        controls=rng.random() < 0.3,
        partitions=rng.choice((1, 1, 2)),
        age_s=rng.choice((0.0, 0.0, 12.0)),
        steps=tuple(sorted(steps)),
    )


def _publish(rng: random.Random) -> tuple[int | float | bool, ...]:
    """Node, topic, whether it has a key, deadline."""
    return rng.randrange(NODES), rng.randrange(5), rng.random() < 0.5, rng.choice((0.0, 0.3, 0.3, 3.0))


_FAULTS: Sequence[tuple[int, str, Callable[[random.Random], tuple[int | float | bool, ...]]]] = (
    (4, "cut", lambda rng: (rng.randrange(NODES),)),
    (2, "cut_all", lambda rng: ()),
    (4, "lose_replies", lambda rng: (rng.randrange(NODES), rng.randrange(1, 4))),
    (4, "lose_requests", lambda rng: (rng.randrange(NODES), rng.randrange(1, 3))),
    (2, "unsent", lambda rng: (rng.randrange(NODES), rng.randrange(1, 3))),
    (1, "refuse", lambda rng: (rng.randrange(NODES), 1)),
    (2, "silence", lambda rng: (rng.randrange(NODES),)),
    (2, "stall", lambda rng: (rng.randrange(NODES), rng.uniform(0.5, 8))),
    (2, "stop_server", lambda rng: (rng.uniform(0.3, 3),)),
    (2, "freeze", lambda rng: (rng.uniform(0.3, 5),)),
    (2, "block", lambda rng: (rng.uniform(0.3, 3),)),
    (3, "set_back", lambda rng: (rng.randrange(1, 10),)),
    (2, "replace", lambda rng: (rng.random() < 0.5, rng.choice((0, 0, 30)))),
    (2, "trim", lambda rng: ()),
    (1, "lag", lambda rng: (rng.randrange(NODES),)),
    (1, "garbage", lambda rng: ()),
    (2, "clock", lambda rng: (rng.randrange(NODES), rng.uniform(-0.4, 0.4))),
    (2, "restart", lambda rng: (rng.randrange(NODES),)),
)


def _fault(rng: random.Random) -> tuple[str, tuple[int | float | bool, ...]]:
    _, name, arguments = rng.choices(_FAULTS, [weight for weight, _, _ in _FAULTS])[0]
    return name, arguments(rng)


def shrink(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """Leave out steps, as long as the run still fails."""
    size = max(1, len(plan.steps) // 2)
    while size:
        at = 0
        while at < len(plan.steps):
            shorter = replace(plan, steps=plan.steps[:at] + plan.steps[at + size :])
            if fails(shorter):
                plan = shorter
            else:
                at += size
        size //= 2
    return plan
