"""Reports plugins that delay the first look-up."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, thread_time
from typing import Final

from dws_core._plugins.records import Plugin

logger = logging.getLogger("dws")

SLOW_S: Final = 0.5
"""Time in seconds from which an import or a hook call is reported."""


@contextmanager
def report_slow(plugin: Plugin, action: str) -> Iterator[None]:
    """Log a warning if the block is slow. Its CPU time shows whether the plugin or a busy machine is the cause."""
    began, began_cpu = perf_counter(), thread_time()
    try:
        yield
    finally:
        if (took := perf_counter() - began) >= SLOW_S:
            logger.warning(
                "%s needed %.1f s %s (%.1f s of CPU time), which delays the start of the process. "
                "Fix: import the client library in `load`, and do no I/O before it",
                plugin.title,
                took,
                action,
                thread_time() - began_cpu,
            )
