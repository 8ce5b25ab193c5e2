"""The health of a node while its broker disconnects and reconnects."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI, Response
from support.apps import chat
from support.brokers import PlainBroker
from support.log_brokers import SlowBroker
from support.resume import connect, slow_node
from support.servers import Client, serve
from support.timeouts import HANG_S

from dws_core import NodeHealth, WebSocketManager
from dws_core.plugin import GapReason, Head


async def test_node_is_ready_between_start_and_stop() -> None:
    manager, _ = chat()
    assert manager.health() == NodeHealth(started=False, broker="connecting", detail="")
    assert not manager.health().ready
    async with manager:
        health = manager.health()
        assert (health.ready, health.started, health.broker) == (True, True, "live")
        assert health.detail
    assert (manager.health().started, manager.health().broker) == (False, "closed")


@pytest.mark.parametrize("state", ["degraded", "blocked"])
async def test_node_is_not_ready_while_broker_is_away(state: str) -> None:
    """Its connections stay open."""
    broker, manager, app = slow_node()
    async with serve(app) as server, Client.open(f"{server.url}/ws/me") as client:
        cursor = (await connect(client, "t"))["cursor"]
        detail = "no answer from the broker for 3 s"
        broker.sink.on_state(state, detail)
        assert manager.health() == NodeHealth(started=True, broker=state, detail=detail, connections=1)  # type: ignore[arg-type]
        assert not manager.health().ready
        assert (await client.exchange(type="ping", id=1))["type"] == "pong"
        broker.sink.on_state("live", "connected again")
        assert manager.health().ready
        await manager.publish("t", "still the same connection")
        message = await client.receive()
        assert message["data"] == "still the same connection"
        assert message["pos"] != cursor


async def test_broken_tail_changes_health_until_reconnected() -> None:
    broker = PlainBroker()
    manager = WebSocketManager("chat", broker=broker)
    states: list[str] = []
    live = asyncio.Event()
    async with manager:
        broker.connect_errors = [ConnectionError("refused")]
        told = manager._runtime.tail_sink.on_state

        def on_state(state: str, detail: str) -> None:
            told(state, detail)  # type: ignore[arg-type]
            states.append(manager.health().broker)
            if state == "live":
                live.set()

        manager._runtime.tail_sink.on_state = on_state  # type: ignore[method-assign, assignment]
        broker.end_deliveries()
        await asyncio.wait_for(live.wait(), HANG_S)
        await manager.publish("t", 1)
    assert states[:2] == ["degraded", "live"]


async def test_discontinuity_reaches_affected_connections() -> None:
    broker, _, app = slow_node()
    assert isinstance(broker, SlowBroker)
    async with serve(app) as server:
        async with Client.open(f"{server.url}/ws/a") as ann, Client.open(f"{server.url}/ws/b") as bo:
            await connect(ann, "t")
            await bo.subscribe("#")
            broker.sink.on_discontinuity(0, GapReason.TRIMMED, Head(partition=0, epoch="new", offset=7))
            for client, filters in ((ann, ["t"]), (bo, ["#"])):
                gap = await client.receive()
                assert (gap["type"], gap["filters"], gap["reason"]) == ("gap", filters, "trimmed")
                assert gap["cursor"] == "0:new:7"


async def test_readiness_route_reports_broker_state() -> None:
    broker, manager, app = slow_node()
    assert isinstance(app, FastAPI)

    @app.get("/ready")
    async def ready(response: Response) -> dict[str, str]:
        health = manager.health()
        response.status_code = 200 if health.ready else 503
        return {"broker": health.broker, "detail": health.detail}

    import httpx2

    async with serve(app) as server, httpx2.AsyncClient() as http:
        assert (await http.get(f"{server.http_url}/ready")).status_code == 200
        broker.sink.on_state("degraded", "away")
        answer = await http.get(f"{server.http_url}/ready")
        assert (answer.status_code, answer.json()) == (503, {"broker": "degraded", "detail": "away"})
