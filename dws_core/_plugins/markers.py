"""The pluggy markers of hook specifications and hook implementations, and the version of the plugin API."""

from __future__ import annotations

from typing import Final

import pluggy

PROJECT: Final = "dws_core"
"""Name of the pluggy project and of the entry-point group."""

API_VERSION: Final = 1
"""Version of the plugin API that this release of dws-core serves.

A plugin may state the version that it needs: an integer `dws_api` in the module (or object) that its entry point
names. A plugin that needs another version is not used, and the error contains the remedy.
"""

OLDEST_API_VERSION: Final = 1
"""The oldest version of the plugin API that this release also serves."""

hookspec: Final[pluggy.HookspecMarker] = pluggy.HookspecMarker(PROJECT)
hookimpl: Final[pluggy.HookimplMarker] = pluggy.HookimplMarker(PROJECT)
