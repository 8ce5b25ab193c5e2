"""The pluggy markers of hook specifications and hook implementations."""

from __future__ import annotations

from typing import Final

import pluggy

PROJECT: Final = "dws_core"
"""Name of the pluggy project and of the entry-point group."""

hookspec: Final[pluggy.HookspecMarker] = pluggy.HookspecMarker(PROJECT)
hookimpl: Final[pluggy.HookimplMarker] = pluggy.HookimplMarker(PROJECT)
