"""Requests that a server has, when it is killed, get their answers from the next one."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from typing import TYPE_CHECKING
from urllib.parse import quote

import psutil
import pytest
from clients import new_session, sessions
from homes import TESTS
from kept import suspended
from servers import Server, keepers, wait_until

from jupyter_sessions_ext.keeper import held
from jupyter_sessions_ext.keeper.link import Link
from jupyter_sessions_ext.keeper.loop import Loop
from jupyter_sessions_ext.keeper.protocol import Kind, pack_json
from jupyter_sessions_ext.keeper.requests import MOST, PLACES, Begun, Requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


LOOPING = ["--ServerApp.jpserver_extensions={'minimal_server': True, 'looping': True}"]


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


def head(server: Server, method: str, path: str, *more: str) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: token {server.token}")
    return "\r\n".join([*lines, *more, "", ""]).encode()


def received(connection: socket.socket) -> bytes:
    """Return all that comes until it ends."""
    answer = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(1 << 16):
            answer += data
    return answer


def test_a_request_of_which_a_part_had_come_is_answered_by_the_next_server(
    shared: Server, connection: Connection
) -> None:
    model = b'{"path": "p.ipynb", "type": "notebook", "name": "", "kernel": {"name": "python3"}}'
    whole = head(shared, "POST", "/api/sessions", f"Content-Length: {len(model)}") + model
    with suspended(psutil.Process(shared.pid)):
        connection.sock.sendall(whole[:3])
    shared.get("/api")
    connection.sock.sendall(whole[3:20])
    shared.get("/api")  # by then it has come
    shared.kill()
    shared.start()
    connection.sock.sendall(whole[20:])
    assert connection.sock.recv(13) == b"HTTP/1.1 201 "


def test_no_answer_takes_the_place_of_another(
    shared: Server, connection: Connection, tmp_path: Path
) -> None:
    sign = tmp_path / "never"
    one, two = head(shared, "GET", "/api"), head(shared, "POST", wait_path(sign))
    connection.sock.sendall(one + two)
    wait_until(begun(sign).exists, 10, "the second had begun")
    connection.sock.sendall(one)
    shared.get("/api")  # by then it has come
    shared.kill()
    shared.start()
    assert received(connection.sock).count(b"HTTP/1.1 ") == 1


def test_a_body_is_not_taken_for_a_request(
    shared: Server, connection: Connection, tmp_path: Path
) -> None:
    sign = tmp_path / "never"
    body = head(shared, "GET", wait_path(sign))
    about = "Expect: 100-continue", f"Content-Length: {len(body)}"
    connection.sock.sendall(head(shared, "POST", "/api/sessions", *about))
    assert connection.sock.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
    shared.get("/api")
    shared.kill()
    with suppress(ConnectionError):
        connection.sock.sendall(body)
    shared.start()
    assert received(connection.sock) == b""
    assert not begun(sign).exists()


def test_a_websocket_ends_with_its_server_however_much_stands_before_what_makes_it_one(
    shared: Server, connection: Connection
) -> None:
    about = (
        *(f"X-{number}: {'x' * 1000}" for number in range(20)),
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
    )
    connection.sock.sendall(head(shared, "GET", "/api/events/subscribe", *about))
    assert connection.sock.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
    connection.sock.sendall(b"\x89\x80\0\0\0\0")  # a ping
    assert connection.sock.recv(2) == b"\x8a\0"
    shared.kill()
    assert received(connection.sock) == b""
    shared.start()


def test_connections_that_come_while_the_keeper_is_held_up_are_held_when_it_goes_on(
    shared: Server, connection: Connection
) -> None:
    with ExitStack() as stack:
        [keeper] = keepers(shared.home)
        with suspended(keeper):
            many = [stack.enter_context(closing(Connection(shared))) for _ in range(400)]
            for one in many:
                one.ask("GET", "/api")
                assert one.answer()[0] == 200
        [session] = sessions(shared)
        shared.execute(session["kernel"]["id"], "pass")  # by then it has gone on
        shared.kill()
        shared.start()
        for one in many:
            one.ask("GET", "/api")
            assert one.answer()[0] == 200


def test_a_server_that_runs_its_loop_before_it_listens_takes_over_port_and_requests(
    server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    sign = tmp_path / "go on"
    with server_factory(args=LOOPING, env={"PYTHONPATH": str(TESTS)}) as server:
        server.execute(new_session(server)["kernel"]["id"], "pass")
        with closing(Connection(server)) as connection:
            connection.ask("GET", wait_path(sign))
            wait_until(begun(sign).exists, 10, "it had begun")
            server.kill()
            sign.touch()
            server.start()
            assert connection.answer()[0] == 200


def test_what_may_have_been_done_is_not_done_again(
    shared: Server, connection: Connection, tmp_path: Path
) -> None:
    sign = tmp_path / "go on"
    connection.ask("POST", wait_path(sign), b"")
    wait_until(begun(sign).exists, 10, "it had begun")
    begun(sign).unlink()
    shared.kill()
    with pytest.raises(ConnectionError):
        connection.answer()
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
    with pytest.raises(ConnectionError):
        connection.answer()
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
    with socket.create_connection(("127.0.0.1", shared.port), 10) as one:
        one.sendall(head(shared, "GET", "/api", "Connection: close"))
        assert received(one).startswith(b"HTTP/1.1 200 ")
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


def test_what_one_server_has_left_is_over_after_a_while_and_what_the_next_has_is_not(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "PATIENCE", 0.05)
    monkeypatch.setattr(held, "RETENTION", 0.1)
    loop = Loop(print)
    connections = held.HeldConnections(loop)
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        link = Link(loop, ours, lambda link, _: connections.hold(link, 0), lambda *_: None)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def connected() -> socket.socket:
            client = socket.create_connection(listener.getsockname(), 5)
            accepted, _ = listener.accept()
            with accepted:
                socket.send_fds(theirs, [pack_json(Kind.NOTE)], [accepted.fileno()])
            loop.call_later(0.01, loop.stop)
            loop.run()
            return stack.enter_context(client)

        connections.share(os.dup(requests.file))
        left = connected()
        connections.server_ended()
        connections.share(os.dup(requests.file))
        has = connected()
        loop.call_later(0.2, loop.stop)
        loop.run()
        assert left.recv(1) == b""
        has.setblocking(False)
        with pytest.raises(BlockingIOError):
            has.recv(1)
        connections.close()
        link.close("it is enough")
