"""What runs in a server whose keepers are of another version, or end soon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from jupyter_sessions_ext.keeper import starter

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

KEEPER = """
import os, sys
from pathlib import Path
from jupyter_sessions_ext.keeper import server

folder = Path(sys.argv[1])
with open(folder / "starts", "a") as file:
    file.write("x")


def hello(keeper, *_, **__):
    if HOW == "of another version":
        return {"version": 4, "pid": os.getpid()}
    os.kill(os.getpid(), 9)


def kernel(keeper, *_, **__):
    os.kill(os.getpid(), 9)


if HOW == "killed soon":
    server.Keeper._kernel = kernel
else:
    server.Keeper._hello = hello
server.main(folder)
"""

starter.COMMAND = ("-c", KEEPER.replace("HOW", repr(os.environ["KEEPER"])))


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    """Do nothing more."""
