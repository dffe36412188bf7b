"""Every route is refused to whoever may not use it, and changes nothing then."""

from __future__ import annotations

import json
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import minimal_kernel
import pytest
from administered import UNKNOWN, Administered
from jupyter_server.base.handlers import APIHandler
from servers import Home, Server

from jupyter_sessions_ext.api import admin, core
from jupyter_sessions_ext.page import handler as page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACTIONS: Final = {"GET": "read", "POST": "write", "PATCH": "write", "DELETE": "write"}
FOREIGN: Final = {"Origin": "http://elsewhere.test"}

EXPORTED: Final = {
    "id": UNKNOWN,
    "path": "imported.ipynb",
    "type": "notebook",
    **dict.fromkeys(("name", "kernel_id", "kernel_name")),
    "state": "dormant",
    **dict.fromkeys(("created_at", "since"), "2026-01-01T00:00:00Z"),
    **dict.fromkeys(("created_by", "reason"), ""),
}
EXPORT: Final = (
    '{"format": "jupyter_sessions_ext", "version": 1, "exported_at": "2026-01-01T00:00:00Z"}\n'
    + json.dumps({"session": EXPORTED})
).encode()
BODIES: Final[dict[str, Any]] = {
    "/api/sessions": {"path": "b.ipynb", "type": "notebook", "kernel": {"name": "minimal"}},
    "/sessions/actions": {"action": "delete", "all": True},
    "/attach": {"path": "b.ipynb"},
    "/{id}": {"path": "b.ipynb", "kernel": {"name": "minimal"}},
}
"""By the end of a route: what changes something if it is taken."""


class Route(NamedTuple):
    """A method of one of the extension's handlers."""

    method: str
    pattern: str
    handler: type

    @property
    def resource(self) -> str:
        """What an authorizer must be asked about."""
        return "sessions" if self.pattern.startswith("/api/") else "sessions_admin"

    @property
    def asks(self) -> str:
        return f"{self.method} {ACTIONS[self.method]} {self.resource}"

    def path(self, session_id: str, kernel_id: str) -> str:
        """Return the address for one session, or kernel."""
        path = re.sub(r"\(\?P<session_id>[^)]*\)", session_id, self.pattern)
        path = re.sub(r"\(\?P<kernel_id>[^)]*\)", kernel_id, path)
        path = re.sub(r"\(\?P<action>([^|)]*)[^)]*\)", r"\1", path)
        return path.replace("/?", "").replace("\\", "").rstrip("$")

    @property
    def content(self) -> bytes | None:
        """What changes something if it is taken."""
        if self.method in ("GET", "DELETE"):
            return None
        path = self.path("{id}", "{id}")
        if path.endswith("/import"):
            return EXPORT
        return json.dumps(next((b for end, b in BODIES.items() if path.endswith(end)), {})).encode()


class Guarded:
    """A server with a session, whose authorizer denies what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self._denied = folder / "denied"
        self._asked = folder / "asked"
        self.deny()
        minimal_kernel.install(self.home)
        self.server = Server(
            self.home,
            args=[
                *minimal_kernel.OPTIONS["args"],
                "--ServerApp.authorizer_class=configured.DenyingAsTold",
            ],
            env={
                **minimal_kernel.OPTIONS["env"],
                "ASKED": str(self._asked),
                "DENIED": str(self._denied),
            },
        ).start()
        self.admin = Administered(self.server)
        self.routes = [*self._registered()]
        self.renew()

    def deny(self, *what: str) -> None:
        """Deny these actions and resources from now on, and forget what was asked."""
        self._denied.write_text(" ".join(what))
        self._asked.write_text("")

    def asked(self) -> list[str]:
        """Return what the authorizer was asked since."""
        return self._asked.read_text().splitlines()

    def _registered(self) -> Iterator[Route]:
        """Yield what the server has of the package's own handlers."""
        for pattern, module, name in self.server.get("/test/routes").json():
            if module.startswith("jupyter_sessions_ext."):
                handler = getattr(import_module(module), name)
                for method in ACTIONS:
                    if method.lower() in vars(handler):
                        yield Route(method, pattern, handler)

    @property
    def changing(self) -> list[Route]:
        return [route for route in self.routes if route.method != "GET"]

    def renew(self) -> None:
        """Have one live session."""
        self.deny()
        self.admin.act("delete", all=True)
        for kernel in self.admin.get("/kernels")["items"]:
            self.admin.ask("DELETE", f"/kernels/{kernel['id']}")
        self.session = self.admin.live("a.ipynb")
        self.before = self.state()

    def path(self, route: Route) -> str:
        """Return the address for the session, or its kernel."""
        return route.path(self.session["id"], self.session["kernel"]["id"])

    def state(self) -> tuple[Any, ...]:
        """Return what there is, and how much has happened."""
        asked = ("id", "path", "name", "type", "state", "created_at")
        items = self.admin.get("/sessions")["items"]
        return (
            [[item[key] for key in asked] for item in items],
            [kernel["id"] for kernel in self.admin.get("/kernels")["items"]],
            self.admin.get("/events")["total"],
        )

    def assert_nothing_was_done(self) -> None:
        self.deny()
        assert self.state() == self.before


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    guarded = Guarded(tmp_path_factory.mktemp("denial"))
    yield guarded
    guarded.server.close()
    assert guarded.home.processes() == []


@pytest.fixture
def guarded(running: Guarded) -> Iterator[Guarded]:
    yield running
    running.assert_nothing_was_done()


def test_every_method_of_every_route_of_the_extension_is_looked_at(guarded: Guarded) -> None:
    known = {(p, h) for p, h in (*core.handlers, *admin.handlers, *page.handlers)}
    assert {(route.pattern.rstrip("$"), route.handler) for route in guarded.routes} == known
    others = {"PUT", "HEAD", "OPTIONS"}
    for route in guarded.routes:
        own = {name.upper() for name in vars(route.handler)} & {*ACTIONS, *others}
        assert own <= set(ACTIONS), route


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_the_token_nothing_is_done(guarded: Guarded, token: str | None) -> None:
    for route in guarded.routes:
        path = guarded.path(route)
        reply = guarded.server.request(route.method, path, content=route.content, token=token)
        if issubclass(route.handler, APIHandler):
            assert reply.status_code == 403, route
        else:  # a person is led to the login
            assert reply.status_code == 302, route
            assert "/login?next=" in reply.headers["Location"]
        assert guarded.session["id"] not in reply.text


@pytest.mark.parametrize("denied", ["read", "write", "sessions", "sessions_admin"])
def test_an_authorizer_is_asked_for_each_route_by_its_method_and_resource(
    guarded: Guarded, denied: str
) -> None:
    for route in guarded.routes:
        is_denied = denied in (ACTIONS[route.method], route.resource)
        path = guarded.path(route) if is_denied else route.path(UNKNOWN, UNKNOWN)
        guarded.deny(denied)
        reply = guarded.server.request(
            route.method, path, content=route.content if is_denied else b"{}"
        )
        assert guarded.asked() == [route.asks]
        assert (reply.status_code == 403) is is_denied, (route, reply.text)
        if is_denied:
            assert "not authorized" in reply.text
            assert guarded.session["id"] not in reply.text


@pytest.fixture
def browser(guarded: Guarded) -> Iterator[httpx.Client]:
    """Log a browser in, which has been on a page."""
    with httpx.Client(base_url=guarded.server.url, trust_env=False) as browser:
        browser.get(f"/api/status?token={guarded.server.token}")
        assert browser.get("/sessions").status_code == 200, "it is not logged in"
        yield browser


def test_a_browsers_login_alone_changes_nothing(guarded: Guarded, browser: httpx.Client) -> None:
    own = {"X-XSRFToken": browser.cookies["_xsrf"]}
    without_cookie = {
        **own,
        "Cookie": "; ".join(
            f"{name}={value}" for name, value in browser.cookies.items() if name != "_xsrf"
        ),
    }
    refused: list[dict[str, str]] = [
        {}, {"X-XSRFToken": "guessed"}, {**own, **FOREIGN}, without_cookie,
    ]  # fmt: skip
    for route in guarded.changing:
        for headers in refused:
            reply = browser.request(
                route.method, guarded.path(route), content=route.content, headers=headers
            )
            expected = 404 if "Origin" in headers else 403
            assert reply.status_code == expected, (route, headers, reply.text)
        # The same is let through with both: to what is not there.
        path = route.path(UNKNOWN, UNKNOWN)
        reply = browser.request(route.method, path, content=b"{}", headers=own)
        assert reply.status_code in (400, 404), (route, reply.text)
        assert "origin" not in reply.text.lower()


def test_a_foreign_page_cannot_read_with_a_browsers_login(
    guarded: Guarded, browser: httpx.Client
) -> None:
    assert browser.get("/api/status", headers=FOREIGN).status_code == 404
    for route in guarded.routes:
        if route.method == "GET":
            reply = browser.get(guarded.path(route), headers=FOREIGN)
            if issubclass(route.handler, APIHandler):
                assert reply.status_code == 404, route
                # 409: nothing is recorded yet of which there could be a transcript
                assert browser.get(guarded.path(route)).status_code in (200, 409), route
            assert guarded.session["id"] not in reply.text
            assert not reply.headers.get("Access-Control-Allow-Origin")


def test_all_that_was_refused_is_done_for_whoever_may(running: Guarded) -> None:
    for route in running.changing:
        running.renew()
        with httpx.Client(base_url=running.server.url, trust_env=False) as browser:
            browser.get(f"/sessions?token={running.server.token}")
            reply = browser.request(
                route.method,
                running.path(route),
                content=route.content,
                headers={"X-XSRFToken": browser.cookies["_xsrf"]},
            )
        assert reply.is_success, (route, reply.text)
    running.renew()
