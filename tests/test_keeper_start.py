"""A keeper is started wherever its server is; one that cannot be used takes no time and no log."""

from __future__ import annotations

import json
import os
import site
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from clients import new_session
from homes import TESTS, state_folder
from kept import keeper_folder
from lasting import LastingClient, assert_whole
from servers import Home, Server, keepers, wait_until

import jupyter_sessions_ext

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WATCHED = 4.0
"""Seconds for which a keeper that cannot be used is started again."""

MOST_STARTS = {"of another version": 1, "killed soon": 8, "killed when it starts": 8}
"""In these seconds: at once, and after 0, 0.25, 0.5, 1, 2, and 4 s."""


@pytest.mark.parametrize("how", MOST_STARTS)
def test_a_keeper_that_cannot_be_used_is_not_started_again_and_again(
    how: str, server_factory: Callable[..., Server]
) -> None:
    args = ["--ServerApp.jpserver_extensions={'keeper_of_another': True}"]
    env = {"PYTHONPATH": str(TESTS), "KEEPER": how}
    with server_factory(args=args, env=env) as server:
        began = time.monotonic()
        before = server.log.count("\n")
        kernel_id = new_session(server)["kernel"]["id"]
        with LastingClient(server, kernel_id) as client:
            assert_whole(client, client.execute("print(0)"), 1)
            first = time.monotonic() - began
            for _ in range(3):  # once it is known, nobody waits
                began = time.monotonic()
                assert server.execute(kernel_id, "print(1)") == "1\n"
            later = time.monotonic() - began
            # What is watched is that nothing happens in a time.
            wait_until(lambda: time.monotonic() - began > WATCHED, 2 * WATCHED, "it was watched")
            starts = len((keeper_folder(server.home) / "starts").read_text())
            assert 1 <= starts <= MOST_STARTS[how]
            assert first < 8
            assert later < 3
        lines = [
            line
            for line in server.log.split("\n")[before:]
            if "keeper" in line and "upgraded" not in line
        ]
        assert len(lines) <= (1 if how == "of another version" else 10), lines
        if how == "of another version":
            assert "There is no keeper" in lines[0]
            assert "restart the server" in lines[0]
        server.kill()
        server.env, server.args = {}, []
        server.start()
        wait_until(lambda: len(keepers(server.home)) == 1, 20, "there was a keeper")
        assert server.execute(kernel_id, "print(2)") == "2\n"


def keeps(server: Server) -> None:
    """Check that a server has a keeper, with which a cell goes on over a kill."""
    began = time.monotonic()
    kernel_id = new_session(server)["kernel"]["id"]
    with LastingClient(server, kernel_id) as client:
        assert_whole(client, client.execute("print(0)"), 1)
        assert time.monotonic() - began < 8
        [keeper] = keepers(server.home)
        server.restart()
        assert_whole(client, client.execute("print(0)"), 1)
        assert keeper.is_running()
    assert "There is no keeper" not in server.log


@pytest.mark.parametrize("how", ["relative", "of the home folder", "relative in the data folder"])
def test_a_state_folder_that_is_not_absolute_has_a_keeper(
    how: str, home: Home, server_factory: Callable[..., Server]
) -> None:
    meant = home.path / "kept" / "state"
    env: dict[str, str] = {}
    if how == "relative in the data folder":
        env["JUPYTER_DATA_DIR"] = "kept"
        meant = home.path / "kept" / "jupyter_sessions_ext"
    else:
        given = "kept/state" if how == "relative" else "~/kept/state"
        config = home.config_dir / "jupyter_server_config.py"
        config.write_text(f"c.SessionsApp.state_dir = {given!r}\n")
    with server_factory(env=env) as server:
        keeps(server)
        assert [folder.name for folder in meant.iterdir()]
        assert not (home.path / "~").exists()
        assert len([*meant.rglob("keeper")]) == 1


PYTHONS = ["a user base", "without a user base", "isolated"]


@pytest.mark.parametrize("how", PYTHONS)
def test_a_keeper_finds_what_its_server_finds(
    how: str, home: Home, server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    argv = [sys.executable, "-I", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = home.data_dir / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": argv, "display_name": "", "language": "python"}))
    server = server_factory(env={"JUPYTER_PREFER_ENV_PATH": "0"})  # this kernel, not ipykernel's
    if how == "isolated":  # what the environment says of Python is not for this server
        server.python = [sys.executable, "-I"]
        server.env["PYTHONHOME"] = str(tmp_path / "none")
    else:
        server.python = [sys._base_executable]  # type: ignore[attr-defined]
        # Found where this test finds it, but by no installation of that Python.
        where = [*site.getsitepackages(), os.path.dirname(jupyter_sessions_ext.__path__[0])]
        base = tmp_path / "base"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = base / "lib" / version / "site-packages"
        packages.mkdir(parents=True)
        (packages / "ours.pth").write_text("\n".join(where))
        if how == "a user base":
            server.env["PYTHONUSERBASE"] = str(base)
        else:
            server.python.append("-s")
            server.env["PYTHONPATH"] = os.pathsep.join(where)
            server.env["PYTHONUSERBASE"] = str(spoiled(tmp_path, version))
        server.args = ["--ServerApp.jpserver_extensions={'jupyter_sessions_ext': True}"]
    with server:
        keeps(server)


def spoiled(tmp_path: Path, version: str) -> Path:
    """Return a user base that spoils a Python which looks there."""
    packages = tmp_path / "spoiled" / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "spoils.pth").write_text("import os; os._exit(3)\n")
    return tmp_path / "spoiled"


def test_a_second_server_of_a_keeper_is_refused_while_the_first_is_there(
    home: Home, server: Server, server_factory: Callable[..., Server]
) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    with LastingClient(server, kernel_id) as client:
        assert_whole(client, client.execute("print(0)"), 1)
        [keeper] = keepers(home)
        folder = state_folder(home)
        code = SECOND.format(folder=str(folder / "keeper"))
        second = psutil.Popen([sys.executable, "-c", code], stdout=-1, text=True)
        said, _ = second.communicate(timeout=30)
        assert f"refused: process {server.pid} is its server" in said
        assert_whole(client, client.execute("print(0)"), 1)
        assert client.connections == 1
        assert keepers(home) == [keeper]
    assert "The keeper is gone" not in server.log


SECOND = """
import asyncio, logging
from pathlib import Path
from jupyter_sessions_ext.errors import KeeperError
from jupyter_sessions_ext.keeper.supervisor import Supervisor

async def main():
    log = logging.getLogger("second")
    keeper = Supervisor(Path({folder!r}), log, limit=1 << 20, total=1 << 20, orphan_timeout=0)
    try:
        await keeper._starter.open()
    except KeeperError as error:
        print(f"refused: {{error}}")

asyncio.run(main())
"""
