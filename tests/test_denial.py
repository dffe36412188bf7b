"""Every route is refused to whoever may not use it, and changes nothing then."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from clients import new_session, sessions
from homes import TESTS

from jupyter_sessions_ext.api import admin, core
from jupyter_sessions_ext.page import handler as page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Home, Server

ACTIONS = {"GET": "read", "POST": "write", "PATCH": "write", "DELETE": "write"}
ROUTES = [
    (method, pattern, resource)
    for handlers, resource in (
        (core.handlers, "sessions"),
        (admin.handlers, "sessions_admin"),
        (page.handlers, "sessions_admin"),
    )
    for pattern, handler in handlers
    for method in ACTIONS
    if method.lower() in vars(handler)
]
CHANGING = [route for route in ROUTES if route[0] != "GET"]
UNKNOWN = "11111111-1111-4111-8111-111111111111"
NAMES = [f"{method} {pattern}" for method, pattern, _ in ROUTES]


def address(pattern: str, session_id: str, kernel_id: str = UNKNOWN) -> str:
    """Return an address of a route: of this session, or of this kernel."""
    pattern = re.sub(r"\(\?P<session_id>[^)]*\)", session_id, pattern)
    pattern = re.sub(r"\(\?P<kernel_id>[^)]*\)", kernel_id, pattern)
    pattern = re.sub(r"\(\?P<action>([^|)]*)[^)]*\)", r"\1", pattern)
    return pattern.replace("/?", "").replace("\\", "")


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
    assert len(ROUTES) == 5 + 16 + 1
    for _, handler in (*core.handlers, *admin.handlers, *page.handlers):
        own = {name.upper() for name in vars(handler)} & {*ACTIONS, "PUT", "HEAD", "OPTIONS"}
        assert own <= set(ACTIONS)


BODY = {"path": "b.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
BODIES = {
    r"/sessions/api/v1/sessions/actions": {"action": "delete", "all": True},
    r"/sessions/api/v1/kernels/(?P<kernel_id>[^/]+)/attach": {"path": "b.ipynb"},
}


def nothing_was_done(server: Server, before: dict[str, Any]) -> None:
    [kept] = sessions(server)
    assert (kept["id"], kept["path"]) == (before["id"], before["path"])
    assert [k["id"] for k in server.get("/api/kernels").json()] == [before["kernel"]["id"]]


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_the_token_nothing_is_done(server: Server, token: str | None) -> None:
    before = new_session(server)
    for method, pattern, _ in ROUTES:
        path = address(pattern, before["id"], before["kernel"]["id"])
        reply = server.request(method, path, BODIES.get(pattern, BODY), token=token)
        if path == "/sessions":  # a person is led to the login
            assert (reply.status_code, "login" in reply.headers["Location"]) == (302, True)
        else:
            assert reply.status_code == 403, (method, path)
        assert before["id"] not in reply.text
    nothing_was_done(server, before)


def test_a_foreign_page_cannot_use_a_browsers_login(server: Server) -> None:
    before = new_session(server)
    with httpx.Client(base_url=server.url, trust_env=False) as browser:
        browser.get(f"/api/status?token={server.token}")
        assert browser.get("/sessions/api/v1/health").status_code == 200, "it is not logged in"
        browser.get("/sessions")
        own = {"X-XSRFToken": browser.cookies["_xsrf"]}
        for method, pattern, _ in CHANGING:
            path = address(pattern, before["id"], before["kernel"]["id"])
            for headers in ({}, {"X-XSRFToken": "guessed"}, {**own, "Origin": "http://evil.test"}):
                reply = browser.request(
                    method, path, json=BODIES.get(pattern, BODY), headers=headers
                )
                assert reply.status_code in (403, 404), (method, path, headers)
        nothing_was_done(server, before)
        for method, pattern, _ in ROUTES:
            reply = browser.request(
                method, address(pattern, UNKNOWN), headers={"Origin": "http://evil.test"}
            )
            assert before["id"] not in reply.text, (method, pattern)
        path = f"/sessions/api/v1/sessions/{before['id']}"
        assert browser.patch(path, json={"name": "n"}, headers=own).status_code == 200


@pytest.mark.parametrize("denied", ["read", "write"])
def test_an_authorizer_is_asked_with_the_routes_own_resource(
    denying: Callable[[str], Server], asked: Path, denied: str
) -> None:
    server = denying(denied)
    server.env["DENIED"] = ""
    expected = []
    for method, pattern, resource in ROUTES:
        reply = server.request(method, address(pattern, UNKNOWN), BODIES.get(pattern, BODY))
        expected.append(f"{method} {ACTIONS[method]} {resource}")
        assert (reply.status_code == 403) is (ACTIONS[method] == denied), (method, pattern)
        if reply.status_code == 403:
            assert "not authorized" in reply.text
    assert [line for line in asked.read_text().splitlines() if line in expected] == expected
    if denied == "write":
        assert [s["path"] for s in sessions(server)] == ["a.ipynb"]
        assert len(server.get("/api/kernels").json()) == 1
