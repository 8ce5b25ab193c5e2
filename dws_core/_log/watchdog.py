"""Noticing that a connection is dead although nothing says so."""

from __future__ import annotations

from typing import Literal


class Watchdog:
    """Says when to probe a silent connection and when to give it up. Told the time, it never asks for it.

    A connection counts as dead only when a probe stayed unanswered: a process that was itself suspended does not
    blame the broker for it.

    Args:
        now: The time, in seconds of any clock that does not jump.
        probe_s: Silence before a probe, and between probes, in seconds.
        dead_s: Silence before the connection is given up, in seconds; more than `probe_s`.
    """

    def __init__(self, now: float, *, probe_s: float = 1.0, dead_s: float = 3.0) -> None:
        if not 0 < probe_s < dead_s:
            raise ValueError(
                f"Watchdog(probe_s={probe_s}, dead_s={dead_s}): 0 < probe_s < dead_s must hold. Fix: raise dead_s"
            )
        self._probe_s = probe_s
        self._patience_s = dead_s - probe_s
        self._look_at = now + probe_s
        self._asked_at: float | None = None  # when the first unanswered probe was due out

    @property
    def look_at(self) -> float:
        """When to call `check` next."""
        return self._look_at

    def heard(self, now: float) -> None:
        """Note that something came through the log: a record or a probe's answer."""
        self._asked_at = None
        self._look_at = now + self._probe_s

    def check(self, now: float) -> Literal["wait", "probe", "dead"]:
        """Say what to do now: wait until `look_at`, send a probe, or abort the connection."""
        if self._asked_at is not None and now - self._asked_at >= self._patience_s:
            return "dead"
        if now < self._look_at:
            return "wait"
        if self._asked_at is None:
            self._asked_at = now
        self._look_at = min(now + self._probe_s, self._asked_at + self._patience_s)
        return "probe"
