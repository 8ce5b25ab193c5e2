"""Log lines that tell the developer about the configuration of a node."""

from __future__ import annotations

import logging

logger = logging.getLogger("dws")


def log_frames(ready: bool) -> bool:
    """Log whether the server accepts ready frames. Return True."""
    if ready:
        logger.info("the server accepts ready frames: each delivery is framed once and written directly")
    else:
        logger.info(
            "the server does not accept ready frames, so deliveries use ASGI messages: same behaviour, slower. "
            "Fix: use uvicorn with --ws auto, its default, or with --ws dws_core.server:WebSocketProtocol"
        )
    return True


def warn_of_open_channel(channel: str) -> None:
    """Warn that nobody is authenticated and everything is allowed."""
    logger.warning(
        "channel %r is open: every client may read and write every topic. Fix: pass verify_token and authorize to "
        "WebSocketManager, or authorize=lambda *_: True if this is what you want",
        channel,
    )
