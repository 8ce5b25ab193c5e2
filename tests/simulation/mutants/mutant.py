"""A small change of the base class, and the rules that such changes break.

The rules and parts are those of `docs/explanation/stream-log.md`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

RULES = {
    "rule 1": "verdict after a reconnect",
    "rule 2": "only a genesis starts an epoch",
    "rule 3": "receipts come from the tail",
    "rule 4": "previous record of the publisher",
    "rule 5": "slow start",
    "rule 6": "jumps of the offsets",
    "part 1": "envelopes",
    "part 2": "publishing",
    "part 3": "tail",
    "part 4": "epochs",
    "part 5": "deduplication",
    "part 6": "history and reads",
    "part 7": "states",
}


@dataclass(frozen=True)
class Mutant:
    """A change.

    Attributes:
        rule: The rule or part that it breaks, a key of `RULES`.
        name: Description of the change.
        owner: Class or module that it changes.
        attribute: Name of the function.
        make: Returns the changed function from the original one.
        unit: Name of the unit test that finds it, as `module:function`. If empty, the simulation finds it.
    """

    rule: str
    name: str
    owner: Any
    attribute: str
    make: Callable[[Any], Any]
    unit: str = ""

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Change the base class in the block."""
        original = self.owner.__dict__[self.attribute]
        setattr(self.owner, self.attribute, self.make(original))
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, original)


def always(value: Any) -> Callable[[Any], Any]:
    """Return a change after which a function always returns a value."""
    return lambda original: lambda *args, **kwargs: value
