"""Kernels that no server has started: their sessions come back, and nobody here ends them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from clients import new_session, sessions
from interpreters import run_python
from servers import Home, Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Kernel = subprocess.Popen[bytes]


@pytest.fixture
def connection_file(home: Home) -> Path:
    return home.runtime_dir / "external" / "mine.json"


@pytest.fixture
def kernel(home: Home, connection_file: Path) -> Iterator[Kernel]:
    """Run a kernel, with its connection file where servers look for such."""
    connection_file.parent.mkdir()
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", str(connection_file)]
    with subprocess.Popen(
        command, env=home.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(
                lambda: connection_file.exists() and connection_file.read_text().endswith("}"),
                30,
                "the kernel had written its connection file",
            )
            yield process
        finally:
            process.kill()


@pytest.fixture
def server(kernel: Kernel, connection_file: Path, home: Home) -> Iterator[Server]:
    """Run a server that looks for them."""
    options = [
        "--ServerApp.allow_external_kernels=True",
        f"--ServerApp.external_connection_dir={connection_file.parent}",
    ]
    with Server(home, args=options) as server:
        yield server


def found(server: Server) -> str:
    """Return the id under which the server knows the kernel: one that it has made up."""
    [kernel] = server.get("/api/kernels").json()
    return str(kernel["id"])


def assert_comes_back(server: Server, session_id: str) -> None:
    """Check that its path, opened with the kernel that was found again, is the old session."""
    assert sessions(server) == []
    again = new_session(server, "b.ipynb", kernel={"id": found(server)})
    assert again["id"] == session_id
    assert [s["id"] for s in sessions(server)] == [session_id]
    assert server.execute(again["kernel"]["id"], "print(x)") == "2\n"


@pytest.fixture
def session_id(server: Server) -> str:
    """Open a session on the kernel, in which ``x`` is then 2, and rename it to b.ipynb."""
    session = new_session(server, kernel={"id": found(server)})
    server.execute(session["kernel"]["id"], "x = 2")
    url = f"/api/sessions/{session['id']}"
    assert server.patch(url, {"path": "b.ipynb"}).status_code == 200
    return str(session["id"])


def assert_no_error(server: Server) -> None:
    assert "Traceback" not in server.log
    assert "[E " not in server.log


def test_however_the_server_ends_the_kernel_goes_on_and_its_session_comes_back(
    server: Server, session_id: str, kernel: Kernel, home: Home
) -> None:
    server.restart()
    assert_comes_back(server, session_id)
    assert server.terminate() == 0
    assert "stay running for the next server" not in server.log  # it is not ours to keep
    server.args.append("--SessionsApp.kernels_on_stop=shutdown")
    server.start()
    assert_comes_back(server, session_id)
    assert server.terminate() == 0
    stop = ("-m", "jupyter_sessions_ext.cli", "stop", "--all")
    assert run_python(*stop, env=home.environment()).returncode == 0
    assert kernel.poll() is None
    server.start()
    assert_comes_back(server, session_id)
    assert_no_error(server)


def test_a_kernel_that_a_client_is_done_with_goes_on_and_is_found_again(
    server: Server, session_id: str, kernel: Kernel
) -> None:
    assert server.delete(f"/api/sessions/{session_id}").status_code == 204
    assert sessions(server) == []
    other = new_session(server, "c.ipynb", kernel={"id": found(server)})
    url = f"/api/sessions/{other['id']}"
    assert server.patch(url, {"kernel": {"name": "python3"}}).status_code == 200
    assert server.delete(url).status_code == 204
    assert server.delete(f"/api/kernels/{found(server)}").status_code == 204
    assert server.execute(found(server), "print(x)") == "2\n"
    assert kernel.poll() is None
    assert server.terminate() == 0
    assert_no_error(server)


def test_a_kernel_that_has_ended_is_gone_with_its_session_which_its_path_brings_back(
    server: Server, session_id: str, kernel: Kernel, connection_file: Path
) -> None:
    assert server.delete(f"/api/kernels/{found(server)}").status_code == 204
    kernel_id = found(server)
    assert new_session(server, "b.ipynb", kernel={"id": kernel_id})["id"] == session_id
    kernel.kill()
    connection_file.unlink()
    assert server.get("/api/kernels").json() == []
    assert server.get(f"/api/kernels/{kernel_id}").status_code == 404
    assert sessions(server) == []
    again = new_session(server, "b.ipynb")
    assert again["id"] == session_id
    assert server.delete(f"/api/sessions/{session_id}").status_code == 204
    assert server.terminate() == 0
    assert_no_error(server)
