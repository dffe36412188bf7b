"""Requests that a server has, when it is killed, get their answers from the next one."""

from __future__ import annotations

import socket
from http.client import HTTPConnection
from typing import TYPE_CHECKING
from urllib.parse import quote

import psutil
import pytest
from clients import new_session, sessions
from kept import suspended
from servers import Server, wait_until

from jupyter_sessions_ext.keeper.requests import MOST, PLACES, Begun, Requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Connection(HTTPConnection):
    """One connection, on which one request follows another."""

    def __init__(self, server: Server) -> None:
        super().__init__("127.0.0.1", server.port, timeout=30)
        self._headers = {"Authorization": f"token {server.token}"}
        self.auto_open = 0
        self.connect()

    def ask(self, method: str, path: str, body: bytes | None = None) -> None:
        self.request(method, path, body, self._headers)

    def answer(self) -> tuple[int, bytes]:
        response = self.getresponse()
        return response.status, response.read()


@pytest.fixture
def connection(shared: Server) -> Iterator[Connection]:
    """Connect with a server that has one session, and whose keeper is there."""
    for session in sessions(shared):
        shared.delete(f"/api/sessions/{session['id']}")
    shared.execute(new_session(shared)["kernel"]["id"], "pass")
    made = Connection(shared)
    yield made
    made.close()


def wait_path(sign: Path, size: int = 0) -> str:
    return f"/test/wait?size={size}&sign={quote(str(sign))}"


def begun(sign: Path) -> Path:
    return sign.with_name(f"{sign.name}.begun")


def test_what_was_being_answered_is_answered_by_the_next_server(
    shared: Server, connection: Connection, tmp_path: Path
) -> None:
    sign = tmp_path / "go on"
    for size in (0, 5 << 20):
        one = Connection(shared)
        one.ask("GET", wait_path(sign, size))
        wait_until(begun(sign).exists, 10, "it had begun")
        shared.kill()
        sign.touch()
        shared.start()
        assert one.answer() == (200, str(shared.pid).encode() + b" " * size)
        one.ask("GET", wait_path(sign))
        assert one.answer() == (200, str(shared.pid).encode())
        one.close()
        sign.unlink()
        begun(sign).unlink()


def test_what_a_killed_server_had_not_read_is_answered_by_the_next_one(
    shared: Server, connection: Connection
) -> None:
    connection.ask("GET", "/api")
    assert connection.answer()[0] == 200
    shared.get("/api")  # by then the server waits for another request
    model = b'{"path": "new.ipynb", "type": "notebook", "name": "", "kernel": {"name": "python3"}}'
    with suspended(psutil.Process(shared.pid)):
        connection.ask("POST", "/api/sessions", model)
        shared.kill()
    shared.start()
    assert connection.answer()[0] == 201
    assert [s["path"] for s in sessions(shared)].count("new.ipynb") == 1


def test_a_connection_that_is_kept_open_can_be_used_after_a_restart(
    shared: Server, connection: Connection
) -> None:
    for how in ("kill", "terminate"):
        one = Connection(shared)
        one.ask("GET", "/api/sessions")
        before = one.answer()
        shared.get("/api")  # by then the server waits for another request
        getattr(shared, how)()
        shared.start()
        one.ask("GET", "/api/sessions")
        assert one.answer()[0] == before[0] == 200
        one.close()


def test_what_may_have_been_done_is_not_done_again(
    shared: Server, connection: Connection, tmp_path: Path
) -> None:
    sign = tmp_path / "go on"
    connection.ask("POST", wait_path(sign), b"")
    wait_until(begun(sign).exists, 10, "it had begun")
    begun(sign).unlink()
    shared.kill()
    status, text = connection.answer()
    assert (status, text[:44]) == (503, b"The server ended while it handled this reque")
    sign.touch()
    shared.start()
    assert not begun(sign).exists()


def test_a_request_of_which_servers_end_is_asked_again_once(
    shared: Server, connection: Connection, tmp_path: Path
) -> None:
    sign, [session] = tmp_path / "never", sessions(shared)
    connection.ask("GET", wait_path(sign))
    for _ in range(2):
        wait_until(begun(sign).exists, 10, "it had begun")
        begun(sign).unlink()
        shared.execute(session["kernel"]["id"], "pass")  # by then the keeper has the connection
        shared.kill()
        shared.start()
    assert connection.answer()[0] == 503
    assert not begun(sign).exists()


def test_requests_are_told_to_come_again_while_no_server_comes(
    shared: Server, connection: Connection, tmp_path: Path
) -> None:
    connection.ask("GET", wait_path(tmp_path / "never"))
    wait_until(begun(tmp_path / "never").exists, 10, "it had begun")
    idle, gone = Connection(shared), Connection(shared)
    for one in (idle, gone):
        one.ask("GET", "/api")
        assert one.answer()[0] == 200
    shared.get("/api")  # by then the server waits for another request
    shared.kill()
    gone.close()
    assert connection.answer()[0] == 503
    idle.ask("GET", "/api")
    assert idle.answer()[0] == 503
    idle.close()
    shared.start()


def test_a_connection_ends_when_the_server_ends_it(shared: Server, connection: Connection) -> None:
    request = f"GET /api HTTP/1.1\r\nHost: localhost\r\nAuthorization: token {shared.token}\r\n"
    with socket.create_connection(("127.0.0.1", shared.port), 10) as one:
        one.sendall(f"{request}Connection: close\r\n\r\n".encode())
        answer = b""
        while data := one.recv(1 << 16):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200 ")
    connection.ask("GET", "/api")
    assert connection.answer()[0] == 200
    assert shared.post("/api/shutdown").status_code == 200
    wait_until(lambda: not shared.running, 20, "the server had ended")
    assert connection.sock.recv(1) == b""
    shared.start()


@pytest.fixture
def requests() -> Iterator[Requests]:
    made = Requests.create()
    yield made
    made.close()


def test_what_is_noted_of_a_request_is_what_came_of_it_as_far_as_there_is_room(
    requests: Requests,
) -> None:
    for place in (0, PLACES - 1):
        requests.begin(place, 7, 9)
        assert requests.begun(place) == Begun(7, 9, 0, b"", False)
        requests.add(place, b"GET ")
        requests.add(place, memoryview(b"/"))
        assert requests.begun(place) == Begun(7, 9, 5, b"GET /", False)
        requests.add(place, bytes(MOST))
        requests.add(place, b"more")
        assert requests.begun(place) == Begun(7, 9, MOST + 9, b"GET /" + bytes(MOST - 5), False)
        requests.begin(place, 8, 10, is_repeated=True)
        assert requests.begun(place) == Begun(8, 10, 0, b"", True)
