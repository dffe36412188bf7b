"""What runs in a server whose keeper notes what it imports when it has started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_sessions_ext.keeper import starter

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

KEEPER = """
import os, sys
from pathlib import Path
from jupyter_sessions_ext.keeper import memory, server

folder = Path(sys.argv[2])
file = os.open(folder / "imports", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
memory.WORTH = -1  # it is given back each time
run = server.Keeper.run

def watched(keeper):
    os.write(file, b"started\\n")
    sys.addaudithook(
        lambda event, args: event == "import" and os.write(file, f"{args[0]}\\n".encode())
    )
    run(keeper)

server.Keeper.run = watched
os._exit(server.main(folder))
"""

starter.COMMAND = ("-c", KEEPER, "jupyter_sessions_ext.keeper")


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    """Do nothing more."""
