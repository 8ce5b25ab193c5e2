"""The error for the use of a manager that is not started. Its advice depends on why the lifespan did not run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dws_core._errors import BrokerClosed

_OWN: Final = "pass FastAPI(lifespan=manager.lifespan), or enter `async with manager:` in your own lifespan function"
_MOUNTED: Final = (
    "pass lifespan=manager.lifespan to the outer application, which the server runs, or enter `async with manager:` in its "
    "lifespan function"
)
_TESTED: Final = "write `with TestClient(app) as client:`, because the test client runs the lifespan only in this block"


def not_started(scope: Mapping[str, Any] | None = None) -> BrokerClosed:
    """Return the error for the use of a manager outside `startup` and `shutdown`.

    Args:
        scope: ASGI scope of the client that cannot be served. If None, the manager was used without a client.
    """
    if scope is None:
        fix = f"{_OWN}. If the application is mounted, {_MOUNTED}. In tests, {_TESTED}"
        return BrokerClosed("the node is not started.", fix=fix)
    reason, fix = "the lifespan of the application has not started it", _OWN
    if scope.get("app_root_path", scope.get("root_path")) != scope.get("root_path"):  # set by Mount of Starlette
        reason, fix = "its endpoint is in a mounted application, whose lifespan does not run", _MOUNTED
    if (scope.get("client") or ("",))[0] == "testclient":
        fix = f"{_TESTED}. Also {fix}"
    return BrokerClosed(f"the node is not started: {reason}.", fix=fix)
