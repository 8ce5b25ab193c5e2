"""The SQLite broker passes the broker suite, with the faults that can happen to a file."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from dws_sqlite._broker import SQLiteBroker

from dws_core.testing import BrokerConformance, BrokerFaults


class Faults(BrokerFaults):
    """What can happen to the file in a folder."""

    cut_tail = cut_commands = restart = None  # type: ignore[assignment]  # a file has no server and no connections

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def wipe(self) -> None:
        await self.take_down()
        os.mkdir(self.folder)

    async def take_down(self) -> None:
        os.rename(self.folder, f"{self.folder}-away")

    async def bring_up(self) -> None:
        os.rename(f"{self.folder}-away", self.folder)

    async def freeze(self) -> None:
        self.lock = sqlite3.connect(self.folder / "dws.db", isolation_level=None)
        self.lock.execute("BEGIN EXCLUSIVE")

    async def thaw(self) -> None:
        self.lock.close()


class TestSQLiteBroker(BrokerConformance):
    broker = SQLiteBroker
    sever = count_operations = None

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "folder"
        folder.mkdir()
        return folder

    @pytest.fixture
    def broker_url(self, folder: Path) -> str:
        return f"sqlite://{folder}/dws.db"

    @pytest.fixture
    def fault(self, folder: Path) -> Faults:
        return Faults(folder)

    @pytest.fixture
    def unreachable_url(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/no/such/folder/dws.db"
