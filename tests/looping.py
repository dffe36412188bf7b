"""A server extension that runs the server's loop when it is loaded, as some do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    """Run it."""
    serverapp.io_loop.run_sync(lambda: asyncio.sleep(0.5))
