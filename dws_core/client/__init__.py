"""A client for Python programs that connect to a node. It reconnects automatically and resumes where it left off.

It is built on the `websockets` package. `docs/reference/protocol.md` describes the protocol, which any other client may
implement.
"""

from __future__ import annotations

from dws_core._wire.client_errors import Refused
from dws_core.client._client import Client
from dws_core.client._events import Gap, Message
from dws_core.client._subscription import Subscription

__all__ = ["Client", "Gap", "Message", "Refused", "Subscription"]
