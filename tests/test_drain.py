"""Requests in flight: a stop in good order fails none, a kill fails those that it meets."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import closing
from functools import partial
from http.client import HTTPConnection, RemoteDisconnected
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from clients import new_session, sessions
from drills import drill_count
from kept import is_open
from servers import Server, wait_until

if TYPE_CHECKING:
    from pathlib import Path


class Connection(HTTPConnection):
    """One connection, on which one request follows another."""

    def __init__(self, server: Server) -> None:
        super().__init__("127.0.0.1", server.port, timeout=30)
        self._headers = {"Authorization": f"token {server.token}"}

    def ask(self, method: str, path: str, body: bytes | None = None) -> None:
        self.request(method, path, body, self._headers)

    def answer(self) -> tuple[int, bytes]:
        response = self.getresponse()
        return response.status, response.read()


def wait_path(sign: Path, size: int = 0) -> str:
    return f"/test/wait?size={size}&sign={quote(str(sign))}"


def begun(sign: Path) -> Path:
    return sign.with_name(f"{sign.name}.begun")


@pytest.fixture
def kept_port(shared: Server) -> Server:
    """Return a server whose keeper has its port."""
    for session in sessions(shared):
        shared.delete(f"/api/sessions/{session['id']}")
    shared.execute(new_session(shared)["kernel"]["id"], "pass")
    return shared


def signalled(server: Server, number: int) -> None:
    """Signal a server, and wait until it stops."""
    size = len(server.log)
    os.kill(server.pid, number)
    wait_until(lambda: "Shutting down" in server.log[size:], 10, "the server was stopping")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_requests_in_flight_end_before_a_server_that_is_signalled(
    kept_port: Server, tmp_path: Path, number: int, method: str
) -> None:
    sign = tmp_path / "go on"
    with closing(Connection(kept_port)) as one, closing(Connection(kept_port)) as idle:
        idle.ask("GET", "/api")
        assert idle.answer()[0] == 200
        one.ask(method, wait_path(sign, 5 << 20), b"")
        wait_until(begun(sign).exists, 10, "it had begun")
        signalled(kept_port, number)
        with closing(Connection(kept_port)) as new:
            new.ask("GET", "/api")  # it waits for the next server
            idle.ask("GET", "/api")
            response = idle.getresponse()
            assert (response.status, response.getheader("Connection")) == (200, "close")
            sign.touch()
            assert one.answer() == (200, str(kept_port.pid).encode() + b" " * (5 << 20))
            wait_until(lambda: not kept_port.running, 20, "the server had ended")
            kept_port.start()
            assert new.answer()[0] == 200


def test_a_second_signal_does_not_wait(kept_port: Server, tmp_path: Path) -> None:
    sign = tmp_path / "never"
    with closing(Connection(kept_port)) as one:
        one.ask("GET", wait_path(sign))
        wait_until(begun(sign).exists, 10, "it had begun")
        signalled(kept_port, signal.SIGTERM)
        os.kill(kept_port.pid, signal.SIGTERM)
        wait_until(lambda: not kept_port.running, 3, "the server had ended")
        with pytest.raises((RemoteDisconnected, ConnectionError)):
            one.answer()


def test_a_request_that_does_not_end_holds_a_server_up_for_some_seconds_only(
    kept_port: Server, tmp_path: Path
) -> None:
    sign = tmp_path / "never"
    with closing(Connection(kept_port)) as one:
        one.ask("GET", wait_path(sign))
        wait_until(begun(sign).exists, 10, "it had begun")
        assert kept_port.post("/api/shutdown").status_code == 200  # it does not wait for itself
        wait_until(lambda: not kept_port.running, 8, "the server had ended")
        with pytest.raises((RemoteDisconnected, ConnectionError)):
            one.answer()


def test_a_request_in_flight_at_a_kill_fails_and_is_not_repeated(
    kept_port: Server, tmp_path: Path
) -> None:
    sign = tmp_path / "go on"
    with closing(Connection(kept_port)) as one:
        one.ask("GET", wait_path(sign))
        wait_until(begun(sign).exists, 10, "it had begun")
        begun(sign).unlink()
        kept_port.kill()
        with pytest.raises((RemoteDisconnected, ConnectionError)):
            one.answer()
        assert is_open(kept_port.port)
        sign.touch()
        kept_port.start()
        assert not begun(sign).exists()


def has_grown(answered: list[int | str], enough: int) -> bool:
    return len(answered) > enough


@pytest.mark.drill
def test_no_request_fails_over_graceful_restarts(kept_port: Server) -> None:
    """Clients that ask all the time, on one connection each and on new ones."""
    stop = threading.Event()
    answered: list[int | str] = []

    def ask_on_one() -> None:
        one = Connection(kept_port)
        while not stop.is_set():
            answered.append(ask(one))
        one.close()

    def ask_on_new() -> None:
        while not stop.is_set():
            with closing(Connection(kept_port)) as one:
                answered.append(ask(one))

    def ask(one: Connection) -> int | str:
        try:
            one.ask("GET", "/api/sessions")
            response = one.getresponse()
            response.read()
        except OSError as error:
            return repr(error)
        return response.status

    threads = [threading.Thread(target=ask_one) for ask_one in (ask_on_one, ask_on_new)]
    for thread in threads:
        thread.start()
    try:
        for restart in range(drill_count(3, 40)):
            enough = len(answered) + 20
            wait_until(partial(has_grown, answered, enough), 20, "they were answered")
            number = signal.SIGINT if restart % 2 else signal.SIGTERM
            os.kill(kept_port.pid, number)
            wait_until(lambda: not kept_port.running, 20, "the server had ended")
            kept_port.start()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(answered) == {200}
    assert len(answered) > 100


def test_websockets_do_not_hold_up_a_server_that_stops(kept_port: Server) -> None:
    [session] = sessions(kept_port)
    with closing(kept_port.connect(session["kernel"]["id"])):
        size = len(kept_port.log)
        os.kill(kept_port.pid, signal.SIGTERM)
        wait_until(lambda: not kept_port.running, 3, "the server had ended")
        assert "stay running" in kept_port.log[size:]
