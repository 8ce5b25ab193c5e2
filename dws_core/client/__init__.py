"""For Python programs that talk to a node: a client that reconnects by itself and resumes where it was.

Built on the `websockets` package. What is said on the wire is in `docs/reference/protocol.md`; any other client that
speaks it does as well.
"""

from __future__ import annotations

from dws_core._wire.client_errors import Refused
from dws_core.client._client import Client
from dws_core.client._state import Gap, Message
from dws_core.client._subscription import Subscription

__all__ = ["Client", "Gap", "Message", "Refused", "Subscription"]
