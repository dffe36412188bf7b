"""What is left of a request whose client goes away before it is answered.

Each test is a row of the table in docs/sessions-api.md, held as in test_races.py.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from clients import sessions
from races import PATIENCE, SESSIONS, Model, Races, told
from servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

WAYS = ["closed", "reset"]


@contextlib.contextmanager
def client(
    races: Races, way: str, method: str, url: str, body: Any = None, sent: int | None = None
) -> Iterator[None]:
    """Send a request, and go away at the end, without an answer.

    :param sent: so many bytes of it; all by default
    """
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {url} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: token {races.server.token}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", races.server.port)) as connection:
        port = connection.getsockname()[1]
        connection.sendall((head.encode() + content)[:sent])
        yield
        if way == "reset":
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    process = psutil.Process(races.server.pid)
    wait_until(
        lambda: (
            port not in {getattr(c.raddr, "port", None) for c in process.net_connections("tcp")}
        ),
        PATIENCE,
        "the server noticed that its client was gone",
    )


def change(session: Model) -> str:
    return f"{SESSIONS}/{session['id']}"


@pytest.mark.parametrize("way", WAYS)
def test_a_post_whose_client_goes_away_makes_its_session(races: Races, way: str) -> None:
    body = {"path": races.path(), "type": "notebook", "kernel": {"name": "python3"}}
    with races.held("start") as start:
        with client(races, way, "POST", SESSIONS, body):
            [kernel] = start.reached()
        races.check_listed()
    races.until_done("POST")
    [model] = sessions(races.server)
    assert (model["path"], model["kernel"]["id"]) == (races.path(), kernel)
    assert told(races.post(), 201)["id"] == model["id"]
    races.check(model)


def test_a_post_waits_for_one_whose_client_went_away(races: Races) -> None:
    body = {"path": races.path(), "type": "notebook", "kernel": {"name": "python3"}}
    with races.held("start") as start:
        with client(races, "closed", "POST", SESSIONS, body):
            [kernel] = start.reached()
        second = races.post()
        races.until_asked("POST", 2)
    model = told(second, 201)
    assert model["kernel"]["id"] == kernel
    races.check(model)


def test_a_failing_post_whose_client_goes_away_leaves_nothing(races: Races) -> None:
    body = {"path": races.path(), "type": "notebook", "kernel": {"name": "python3"}}
    with races.held("start") as start:
        with client(races, "closed", "POST", SESSIONS, body):
            [kernel] = start.reached()
        start.fail(kernel)
        races.until_done("POST")
    races.check()


def test_half_a_post_makes_nothing(races: Races) -> None:
    body = {"path": races.path(), "type": "notebook", "kernel": {"name": "python3"}}
    for sent in (10, -1):
        with client(races, "closed", "POST", SESSIONS, body, sent):
            pass
    assert races.signs("asked") == set()
    races.check()


@pytest.mark.parametrize("way", WAYS)
def test_a_kernel_change_whose_client_goes_away_is_made(races: Races, way: str) -> None:
    old = races.new()
    with races.held("start") as start:
        with client(races, way, "PATCH", change(old), {"kernel": {"name": "python3"}}):
            [kernel] = start.reached()
        races.check_listed(old)
    races.until_done("PATCH")
    new = told(races.get(old), 200)
    assert new["kernel"]["id"] == kernel
    races.check(new)


@pytest.mark.parametrize("way", WAYS)
def test_a_delete_whose_client_goes_away_is_made(races: Races, way: str) -> None:
    old = races.new()
    with races.held("end") as end:
        with client(races, way, "DELETE", change(old)):
            end.reached()
        races.check_listed()
    races.until_done("DELETE")
    races.check()
