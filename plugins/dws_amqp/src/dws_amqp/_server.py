"""What a server can do, by its product and version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dws_core.plugin import WireUnusable

_OLDEST: Final = (3, 8)
_WITH_STREAMS: Final = (3, 9)
_UNTESTED: Final = (4, 0)
_LIVE_ONLY: Final = "so messages are delivered live, without history, and clients cannot resume. Fix:"


@dataclass(frozen=True, slots=True)
class Server:
    """A server.

    Attributes:
        name: Its product and version.
        version: Major and minor version, or None if it is not a RabbitMQ.
    """

    name: str
    version: tuple[int, int] | None

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> Server:
        """Read the properties that a server sends to its clients."""
        product, version = str(properties.get("product", "a server")), str(properties.get("version", ""))
        numbers = re.match(r"(\d+)\.(\d+)", version) if product == "RabbitMQ" else None
        return cls(f"{product} {version}".strip(), (int(numbers[1]), int(numbers[2])) if numbers else None)

    @property
    def has_streams(self) -> bool:
        """Whether streams exist in this version. They may be disabled.

        Raises:
            WireUnusable: The version is too old for this plugin.
        """
        if self.version is not None and self.version < _OLDEST:
            raise WireUnusable(f"{self.name} is too old: 3.8 is required, and 3.9 for history")
        return self.version is None or self.version >= _WITH_STREAMS

    def warnings(self, *, stores: bool) -> list[str]:
        """Return sentences for the log.

        Args:
            stores: Whether the server has accepted the streams.
        """
        found = []
        if not self.has_streams:
            found.append(f"{self.name} has no streams, {_LIVE_ONLY} install RabbitMQ 3.9 or newer")
        elif not stores:
            advice = "run 'rabbitmqctl enable_feature_flag stream_queue', and restart all nodes"
            found.append(f"the streams of {self.name} are disabled, {_LIVE_ONLY} {advice}")
        if self.version is not None and self.version >= _UNTESTED:
            found.append(f"{self.name} is newer than all versions with which this plugin was tested")
        return found
