"""What every test of the core runs under."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio: the event loop of FastAPI's servers."""
    return "asyncio"
