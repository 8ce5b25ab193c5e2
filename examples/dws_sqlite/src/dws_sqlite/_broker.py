"""`SQLiteBroker`: the URL. `_wire.py` uses the file, and the base class does everything else."""

from __future__ import annotations

from typing import Self

from dws_core.plugin import BrokerURL, InvalidBrokerURL, StreamLogBroker, StreamWire
from dws_sqlite import CAPABILITIES
from dws_sqlite._wire import SQLiteOptions, SQLiteWire


class SQLiteBroker(StreamLogBroker):
    """Streams in the tables of one SQLite file."""

    capabilities = CAPABILITIES
    options_class = SQLiteOptions

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build from `sqlite:///path/to/file`."""
        if url.hosts or url.username or not url.path:
            raise InvalidBrokerURL(f"broker URL {url} is not a file.", fix="write sqlite:///path/to/file")
        return super().from_url(url)

    def wire(self) -> StreamWire:
        """Return a new wire."""
        return SQLiteWire("/" + self.url.path.lstrip("/"), self.options)
