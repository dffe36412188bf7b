"""What runs in a server that soon finds that a keeper hangs, or that has a keeper of old."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from jupyter_sessions_ext.keeper import starter

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

OLD_KEEPER = """
import sys
from pathlib import Path
from jupyter_sessions_ext.keeper import server
server.VERSION = 0
server.main(Path(sys.argv[1]))
"""

if "OLD_KEEPER" in os.environ:
    starter.VERSION = 0  # type: ignore[attr-defined]
    starter.COMMAND = ("-c", OLD_KEEPER)
else:
    starter._PING_INTERVAL = 0.2
    starter.ANSWER_TIMEOUT = 0.5


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    """Do nothing more."""
