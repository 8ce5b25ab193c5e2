"""Measures the cost of a block in a test: CPU time of this process, and peak memory. Other processes do not count."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Cost:
    """The cost of a block, known at its end.

    Attributes:
        cpu_s: CPU time of this process, in seconds.
        peak_bytes: Highest memory of Python objects during the block above that at its beginning, in bytes.
        kept_bytes: Memory of Python objects at the end of the block above that at its beginning, in bytes.
    """

    cpu_s: float = 0.0
    peak_bytes: int = 0
    kept_bytes: int = 0


@contextmanager
def cpu_time() -> Iterator[Cost]:
    """Measure the CPU time of a block."""
    cost, began = Cost(), time.process_time()
    yield cost
    cost.cpu_s = time.process_time() - began


@contextmanager
def memory() -> Iterator[Cost]:
    """Measure the memory of a block, which makes it several times slower."""
    cost = Cost()
    gc.collect()
    tracemalloc.start()
    try:
        yield cost
        cost.peak_bytes = tracemalloc.get_traced_memory()[1]
        gc.collect()
        cost.kept_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
