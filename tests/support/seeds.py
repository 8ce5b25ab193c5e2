"""Seeds of random tests."""

from __future__ import annotations

import random
import sys


def new_seed() -> int:
    """Return a seed. pytest shows it if the test fails."""
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    return seed
