"""The recipe for background jobs, run by a real Celery worker with several processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI, WebSocket
from services.redis import PrivateRedis
from support.pages import block
from support.server_process import ServerProcess
from support.servers import Client, serve

from dws_core import WebSocketManager

pytest.importorskip("celery", reason="needs celery: pip install celery")
pytest.importorskip("dws_redis", reason="needs dws-redis: pip install ./plugins/dws_redis")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs processes that fork")

PAGE = "recipes/background-jobs.md"
CELERY = [sys.executable, "-m", "celery", "-A", "jobs"]
WORKER = [*CELERY, "worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "INFO"]
CALL = [sys.executable, "-c", "import jobs; [jobs.render.delay(report) for report in (1, 2, 2)]"]
"""The last call repeats a report, whose key is known."""


async def test_celery_tasks_publish_to_browsers(redis: PrivateRedis, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(block(PAGE, "python", "from celery import Celery"))
    environment = {"REDIS_URL": redis.url}
    manager = WebSocketManager("jobs", broker_url=redis.url)
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        async with manager.connect(websocket, topic="jobs/#") as connection:
            async for _ in connection:
                pass

    async with serve(app) as server, Client.open(f"{server.url}/ws") as client:
        with ServerProcess.open(WORKER, tmp_path, environment) as worker:
            await asyncio.to_thread(worker.printed, "ready")
            await asyncio.to_thread(subprocess.run, CALL, check=True, cwd=tmp_path, env={**os.environ, **environment})
            await asyncio.to_thread(worker.printed, "succeeded", 3)
        received = [(await client.receive())["data"]["report"] for _ in range(2)]
        assert sorted(received) == [1, 2]
        await client.assert_nothing_received(topic="jobs/reports", publish=manager.publish)
