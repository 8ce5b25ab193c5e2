"""The SQLite broker passes the broker suite."""

from __future__ import annotations

from pathlib import Path

import pytest
from dws_sqlite._broker import SQLiteBroker

from dws_core.testing import BrokerConformance


class TestSQLiteBroker(BrokerConformance):
    broker = SQLiteBroker
    fault = sever = count_operations = None  # a file has no server and no connections

    @pytest.fixture
    def broker_url(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/dws.db"

    @pytest.fixture
    def unreachable_url(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/no/such/folder/dws.db"
