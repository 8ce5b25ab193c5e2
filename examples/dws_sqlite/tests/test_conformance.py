"""The SQLite broker passes the broker suite, with the faults that can happen to a file."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from dws_sqlite._broker import SQLiteBroker

from dws_core.testing import BrokerConformance, BrokerFaults


class Faults(BrokerFaults):
    """What can happen to a file. Its whole folder is moved, so that no process uses a half of it."""

    cut_tail = cut_commands = restart = None  # type: ignore[assignment]  # a file has no server and no connections

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._old = self._snapshot = ""

    async def wipe(self) -> None:
        await self._replace(self._new_folder())

    async def take_down(self) -> None:
        self._old = f"{self._folder}-{next(self._numbers)}"
        os.rename(self._folder, self._old)

    async def bring_up(self) -> None:
        os.rename(self._old, self._folder)

    async def snapshot(self) -> None:
        self._snapshot = self._new_folder()
        source, target = sqlite3.connect(self._folder / "dws.db"), sqlite3.connect(f"{self._snapshot}/dws.db")
        with closing(source), closing(target):
            source.backup(target)

    async def set_back(self) -> None:
        await self._replace(shutil.copytree(self._snapshot, self._new_folder(), dirs_exist_ok=True))

    async def freeze(self) -> None:
        self._lock = sqlite3.connect(self._folder / "dws.db", isolation_level=None)
        self._lock.execute("BEGIN EXCLUSIVE")

    async def thaw(self) -> None:
        self._lock.close()

    async def _replace(self, folder: str) -> None:
        await self.take_down()
        os.rename(folder, self._folder)

    def _new_folder(self) -> str:
        folder = f"{self._folder}-{next(self._numbers)}"
        os.mkdir(folder)
        return folder


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
