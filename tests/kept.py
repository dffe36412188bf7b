"""A server whose keeper is put to the test, and what a test asks of that, and does to it."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from homes import TESTS, state_folder
from lasting import LastingClient, assert_whole
from servers import Home, Server, end_keepers

from jupyter_sessions_ext.keeper.protocol import Kind, Unpacker, pack_json
from jupyter_sessions_ext.keeper.takeover import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPTIONS = [
    "--ServerApp.jpserver_extensions={'minimal_server': True}",
    "--MappingKernelManager.cull_idle_timeout=3600",
    "--MappingKernelManager.cull_connected=True",
    "--KernelRestarter.time_to_dead=0.1",
]
"""Options of a server that culls a kernel when a test says so, and soon misses a killed one."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server for the tests of a module; they may kill it, and start it again."""
    home = Home(tmp_path_factory.mktemp("kept") / "home")
    with Server(home, args=OPTIONS, env={"PYTHONPATH": str(TESTS)}) as server:
        yield server
    assert home.processes() == []


@pytest.fixture
def shared(started: Server) -> Server:
    """Return the server of the module, which runs."""
    return started if started.running else started.start()


def finishes(client: LastingClient, code: str = "print(0)") -> None:
    """Check that a client can have a cell run as ever, which prints 0."""
    assert_whole(client, client.execute(code), 1)


def is_open(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    with suppress(ConnectionError):
        socket.create_connection(("127.0.0.1", port), 5).close()
        return True
    return False


def keeper_folder(home: Home) -> Path:
    return state_folder(home) / "keeper"


def keeper_log(home: Home) -> str:
    """Return what the keepers of a home have logged."""
    return (keeper_folder(home) / "keeper.log").read_text()


def ask_keeper(home: Home, what: str, **more: Any) -> dict[str, Any]:
    """Ask a home's keeper; what it was to see before, it has seen then."""
    with connect(keeper_folder(home), 10) as connection:
        connection.sendall(pack_json(Kind.CALL, 1, op=what, **more))
        unpacker = Unpacker()
        while data := connection.recv(1 << 16):
            for packet in unpacker.feed(data):
                return packet.body
    raise ConnectionResetError("the keeper has ended")


@contextmanager
def suspended(process: psutil.Process) -> Iterator[psutil.Process]:
    """Have a process held up, as by a machine that has no time for it."""
    process.suspend()
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


@contextmanager
def no_keeper(home: Home) -> Iterator[None]:
    """Have no keeper, and that none can be started: there is a file in its folder's place."""
    folder = keeper_folder(home)
    aside = folder.with_name("keeper-aside")
    folder.rename(aside)
    folder.write_text("")
    end_keepers(home)
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)
