"""The minimal kernel is a real one: what is tested with it holds for others."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import minimal_kernel
import pytest
from homes import kernel_process
from messages import CellError
from servers import Home, Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server(home: Home) -> Iterator[Server]:
    minimal_kernel.install(home)
    with Server(home, **minimal_kernel.OPTIONS) as server:
        yield server


@pytest.fixture
def kernel_id(server: Server) -> str:
    reply = server.post("/api/kernels")
    assert reply.json()["name"] == "minimal"
    return str(reply.json()["id"])


def test_it_executes_what_clients_send(server: Server, kernel_id: str) -> None:
    assert server.execute(kernel_id, "x = 1\nprint(x)") == "1\n"
    assert server.execute(kernel_id, "print(x + 1)") == "2\n"
    with pytest.raises(CellError, match="ZeroDivisionError"):
        server.execute(kernel_id, "x / 0")
    [kernel] = server.get("/api/kernels").json()
    assert kernel["execution_state"] == "idle"


def test_its_variables_last(server: Server, kernel_id: str) -> None:
    server.execute(kernel_id, "x = 1")
    server.restart()
    assert server.execute(kernel_id, "print(x)") == "1\n"


def test_it_can_be_interrupted(server: Server, kernel_id: str, home: Home) -> None:
    code = f"open({str(home.path / 'began')!r}, 'w').close()\nwhile True: pass"
    raised: list[BaseException] = []

    def run() -> None:
        try:
            server.execute(kernel_id, code)
        except CellError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until((home.path / "began").exists, 10, "the cell ran")
    assert server.post(f"/api/kernels/{kernel_id}/interrupt").status_code == 204
    thread.join(10)
    assert "KeyboardInterrupt" in str(raised)


def test_it_restarts_with_no_variables(server: Server, kernel_id: str) -> None:
    server.execute(kernel_id, "x = 1")
    assert server.post(f"/api/kernels/{kernel_id}/restart").status_code == 200
    with pytest.raises(CellError, match="NameError"):
        server.execute(kernel_id, "x")


def test_it_ends_when_asked_to(server: Server, kernel_id: str, home: Home) -> None:
    server.execute(kernel_id, "x = 1")
    process = kernel_process(home, kernel_id)
    assert server.delete(f"/api/kernels/{kernel_id}").status_code == 204
    assert not process.is_running()


def test_it_ends_at_a_signal(server: Server, kernel_id: str, home: Home) -> None:
    server.execute(kernel_id, "x = 1")
    server.kill()
    process = kernel_process(home, kernel_id)
    process.send_signal(signal.SIGTERM)
    process.wait(5)


def test_no_other_kernel_can_be_started(server: Server) -> None:
    body = {"path": "a.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
    assert server.post("/api/sessions", body).status_code == 501
    assert list(server.get("/api/kernelspecs").json()["kernelspecs"]) == ["minimal"]
