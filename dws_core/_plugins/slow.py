"""Reports plugins that delay the first look-up."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

from dws_core._plugins.records import Plugin

logger = logging.getLogger("dws")

SLOW_S: Final = 0.5
"""Time in seconds from which an import or a hook call is reported."""


@contextmanager
def report_slow(plugin: Plugin, action: str) -> Iterator[None]:
    """Log a warning if the block is slow."""
    began = perf_counter()
    try:
        yield
    finally:
        if (took := perf_counter() - began) >= SLOW_S:
            logger.warning(
                "%s needed %.1f s %s, which delays the start of the process. "
                "Fix: import the client library in `load`, and do no I/O before it",
                plugin.title,
                took,
                action,
            )
