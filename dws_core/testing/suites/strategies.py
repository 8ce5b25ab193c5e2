"""Stories of clients that roam, made by hypothesis: which it needs, unlike the suites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Scenario: TypeAlias = tuple[int, list[tuple[str | int, ...]]]
"""Size of the topics' history, and the steps of `World` with their arguments."""

_CLIENT: Final = st.integers(0, 2)
_NODE: Final = st.integers(0, 1)
_TOPIC: Final = st.integers(0, 2)


def _step(name: str, *arguments: SearchStrategy[int]) -> SearchStrategy[tuple[str | int, ...]]:
    return st.tuples(st.just(name), *arguments)


_PUBLISH: Final = _step("publish", _NODE, _TOPIC, st.integers(1, 3))
_ATTACH: Final = _step("attach", _CLIENT, _NODE)
_REST: Final = [
    _step("wait", _CLIENT),
    _step("detach", _CLIENT),
    _step("tick"),
    _step("hold", _NODE),
    _step("release", _NODE),
]

SCENARIOS: Final[SearchStrategy[Scenario]] = st.tuples(
    st.sampled_from([2, 100]),
    st.lists(st.one_of(_PUBLISH, _PUBLISH, _PUBLISH, _ATTACH, _ATTACH, *_REST), min_size=15, max_size=30),
)
"""Coming and publishing weigh more than the rest: that is where things go wrong."""


def check_all(scenarios: SearchStrategy[Scenario], check: Callable[[Scenario], None], *, examples: int = 200) -> None:
    """Check that something holds for all scenarios: for the same ones in every run; a failure is made small."""

    @settings(
        max_examples=examples,
        phases=[Phase.generate, Phase.shrink],
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(scenarios)
    def run(scenario: Scenario) -> None:
        check(scenario)

    run()
