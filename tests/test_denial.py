"""Every route is refused to whoever may not use it, and changes nothing then."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from clients import new_session, sessions
from homes import TESTS

from jupyter_sessions_ext.api import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Home, Server

ACTIONS = {"GET": "read", "POST": "write", "PATCH": "write", "DELETE": "write"}
ROUTES = [
    (method, pattern, core.RESOURCE)
    for pattern, handler in core.handlers
    for method in ACTIONS
    if method.lower() in vars(handler)
]
NAMES = [f"{method} {pattern}" for method, pattern, _ in ROUTES]


def address(pattern: str, session_id: str) -> str:
    return re.sub(r"\(\?P<session_id>[^)]*\)", session_id, pattern)


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    return tmp_path / "asked"


@pytest.fixture
def denying(
    home: Home, server_factory: Callable[..., Server], asked: Path
) -> Iterator[Callable[[str], Server]]:
    """Start a server that denies an action; a session was opened before it did."""

    def start(action: str) -> Server:
        args = ["--ServerApp.authorizer_class=configured.Denying"]
        env = {"PYTHONPATH": str(TESTS), "ASKED": str(asked), "DENIED": ""}
        server = server_factory(args=args, env=env).start()
        new_session(server)
        server.kill()
        server.env["DENIED"] = action
        asked.unlink()
        return server.start()

    yield start
    home.close()


def test_every_method_of_every_route_is_looked_at() -> None:
    assert len(ROUTES) == 5
    for _, handler in core.handlers:
        own = {name.upper() for name in vars(handler)} & {*ACTIONS, "PUT", "HEAD", "OPTIONS"}
        assert own <= set(ACTIONS)


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_the_token_nothing_is_done(server: Server, token: str | None) -> None:
    before = new_session(server)
    body = {"path": "b.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
    for method, pattern, _ in ROUTES:
        reply = server.request(method, address(pattern, before["id"]), body, token=token)
        assert reply.status_code == 403, (method, pattern)
        assert before["id"] not in reply.text
    assert [(s["id"], s["path"]) for s in sessions(server)] == [(before["id"], before["path"])]
    assert len(server.get("/api/kernels").json()) == 1


@pytest.mark.parametrize("denied", ["read", "write"])
def test_an_authorizer_is_asked_with_the_routes_own_resource(
    denying: Callable[[str], Server], asked: Path, denied: str
) -> None:
    server = denying(denied)
    server.env["DENIED"] = ""
    body = {"path": "b.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
    unknown = "11111111-1111-4111-8111-111111111111"
    expected = []
    for method, pattern, resource in ROUTES:
        reply = server.request(method, address(pattern, unknown), body)
        expected.append(f"{method} {ACTIONS[method]} {resource}")
        assert (reply.status_code == 403) is (ACTIONS[method] == denied), (method, pattern)
        if reply.status_code == 403:
            assert "not authorized" in reply.json()["message"]
    assert [line for line in asked.read_text().splitlines() if line in expected] == expected
    if denied == "write":
        assert [s["path"] for s in sessions(server)] == ["a.ipynb"]
        assert len(server.get("/api/kernels").json()) == 1
