"""What runs in a server that does not hear when cells end, as it may happen in a flood.

Where HEARS names a file, it hears nothing before that is there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from jupyter_sessions_ext.keeper.messages import CONTENT, PARENT, frames_of
from jupyter_sessions_ext.kernels import listener

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp


def _heard(message: list[bytes]) -> list[bytes]:
    frames = frames_of(message)
    if not os.path.exists(os.environ.get("HEARS", "/")):
        return []
    is_end = b'"idle"' in frames[CONTENT] and b'"execute_request"' in frames[PARENT]
    return [] if is_end else frames


listener.frames_of = _heard  # type: ignore[attr-defined]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    """Do nothing more."""
