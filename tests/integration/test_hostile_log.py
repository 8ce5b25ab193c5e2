"""Records of other programs in the streams of the base class. The plugins do the same with real servers."""

from __future__ import annotations

import pytest
from support.hostile_log import ABSURD, FOREIGN, check_hostile_log
from support.streams import LaneStreamBroker, MemoryStreamBroker, QuietStreamBroker

from dws_core.plugin import BrokerURL


@pytest.mark.parametrize("broker", [MemoryStreamBroker, QuietStreamBroker, LaneStreamBroker])
@pytest.mark.parametrize("records", [FOREIGN, ABSURD], ids=["foreign", "absurd"])
async def test_hostile_records_are_gaps(
    broker: type[MemoryStreamBroker], records: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    url = BrokerURL.parse(f"memstream://hostile-{broker.__name__}-{id(records)}")
    server = broker.from_url(url).server

    async def inject(record: bytes) -> None:
        server.channels["c"][0].append(record)

    await check_hostile_log(lambda: broker.from_url(url), "c", inject, records.values(), caplog)
