"""Ours answers every request as jupyter_server does, but for what the documentation lists."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import httpx
import pytest
from requests_http import HTTP
from requests_refused import REFUSED, Refused
from requests_sent import ASKED, BASE_URL, FIRST, SESSIONS, Request
from servers import Home, Server, wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "sessions-api.md"
STOCK: Final = "--ServerApp.jpserver_extensions={'jupyter_sessions_ext': False}"
SAME: Final = {**ASKED, **HTTP}
ELSEWHERE: Final = {"posts-at-once", "kernel-id-at-once", "kernel-ending"}
"""Rules of differences that a test of its own shows."""
ATTEMPTS: Final = 10
"""How often jupyter_server may win a race that it can lose."""

ID: Final = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
KERNEL: Final = re.compile(r'"kernel": \{"id": "([^"]+)"')
TIME: Final = re.compile(r'(?<=")\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z(?=")')
COOKIE: Final = re.compile(r"^(_xsrf=|username-127-0-0-1-)\S+?; expires=[^;]+ GMT;")


class Asked:
    """One server of the two, what it was asked to keep, and the names of what it made."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.kept: dict[str, str] = {}
        self.ids: dict[str, str] = {}

    def log_in(self) -> None:
        """Keep the cookies of a browser that has logged in."""
        page = self.server.get("/login", token=None)
        xsrf = _cookie(page, "_xsrf")
        reply = self.server.request(
            "POST",
            "/login",
            token=None,
            content=f"password=test-token&_xsrf={xsrf}".encode(),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Cookie": f"_xsrf={xsrf}",
            },
        )
        [user] = [c for c in reply.headers.get_list("Set-Cookie") if c.startswith("username")]
        self.kept["xsrf"] = xsrf
        self.kept["cookies"] = f"_xsrf={xsrf}; {user.partition(';')[0]}"

    def fill(self, text: str) -> str:
        for name, value in self.kept.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def send(self, request: Request) -> httpx.Response:
        content = request.content
        if content is not None:
            content = self.fill(content.decode("latin-1")).encode("latin-1")
        reply = self.server.request(
            request.method,
            self.fill(request.path),
            content=content,
            token=request.token,
            headers={
                "Accept-Encoding": "identity",
                **{name: self.fill(value) for name, value in request.headers.items()},
            },
        )
        if "Etag" in reply.headers and reply.status_code == 200:
            self.kept["etag"] = reply.headers["Etag"]
        if request.keep:
            assert reply.status_code == 201, f"{request} {reply.text}"
            model = reply.json()
            self.kept[request.keep] = model["id"]
            self.kept[f"{request.keep}.kernel"] = model["kernel"]["id"]
        return reply

    def state(self) -> dict[str, str]:
        """Return what there is, sessions and kernels, as the server writes it."""
        replies = {kind: self.server.get(f"/api/{kind}") for kind in ("sessions", "kernels")}
        assert {reply.status_code for reply in replies.values()} == {200}
        return {kind: reply.text for kind, reply in replies.items()}

    def mapped_state(self) -> dict[str, str]:
        return {kind: self.mapped(text) for kind, text in self.state().items()}

    def end_sessions(self) -> None:
        """Delete the sessions that do not run on the kernel of ``{base}``."""
        for model in self.server.get(SESSIONS).json():
            if model["kernel"]["id"] != self.kept["base.kernel"]:
                self.delete(model["id"])

    def delete(self, session_id: str) -> None:
        reply = self.server.delete(f"{SESSIONS}/{session_id}")
        assert reply.status_code == 204, reply.text

    def mapped(self, text: str) -> str:
        """Put for each id its number in the order of appearance, for each time that it is one."""
        for kernel_id in KERNEL.findall(text):
            self.number(kernel_id, "kernel")
        text = ID.sub(lambda found: self.number(found[0], "session"), text)
        return TIME.sub("<time>", text).replace(f"127.0.0.1:{self.server.port}", "<host>")

    def number(self, id_: str, kind: str) -> str:
        """Return the number of an id among those of its kind, which it gets when it is new."""
        count = sum(name.startswith(f"<{kind} ") for name in self.ids.values())
        return self.ids.setdefault(id_, f"<{kind} {count}>")

    def headers(self, reply: httpx.Response) -> dict[str, str]:
        """Return the headers, with a word for each value that differs by nature."""
        found: dict[str, str] = {}
        for name, value in reply.headers.multi_items():
            if name == "date":
                value = "<date>"
            elif name == "set-cookie":
                value = COOKIE.sub(r"\1<value>; expires=<date>;", value)
            elif name == "etag" and value == f'"{hashlib.sha1(reply.content).hexdigest()}"':
                value = "<of the body>"
            elif name == "etag" and reply.status_code == 304 and value == self.kept["etag"]:
                value = "<of the last body>"
            elif name == "content-length" and value == str(len(reply.content)):
                value = "<of the body>"
            elif name == "content-length" and "content-encoding" in reply.headers:
                value = "<of the compressed body>"
            found[name if name not in found else f"{name} {len(found)}"] = self.mapped(value)
        return dict(sorted(found.items()))


class Pair:
    """A stock server and ours, which are asked the same."""

    def __init__(self, path: Path, base_url: str = "") -> None:
        self.homes = [Home(path / "stock"), Home(path / "ours")]
        self.stock = Asked(Server(self.homes[0], base_url=base_url, args=[STOCK]))
        self.ours = Asked(Server(self.homes[1], base_url=base_url))
        self._threads = ThreadPoolExecutor(2)

    def __enter__(self) -> Self:
        try:
            self.both(lambda asked: asked.server.start())
            self.both(Asked.log_in)
            for request in FIRST:
                assert self.differences(request) == []
            self.both(_until_idle)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        for home in self.homes:
            home.close()
        for home in self.homes:
            assert home.processes() == []

    def both(self, ask: Callable[[Asked], Any]) -> tuple[Any, Any]:
        """Return what the stock server and ours answer, which are asked at the same time."""
        stock, ours = self._threads.map(ask, (self.stock, self.ours))
        return stock, ours

    def differences(self, request: Request) -> list[str]:
        """Send a request to both, and return where in the answers and after them they differ."""
        stock, ours = self.both(lambda asked: asked.send(request))
        found = _differences(
            _answer(self.stock, stock),
            _answer(self.ours, ours),
        )
        if request.method != "GET" and not request.quiet:
            found += _differences(*self.both(Asked.mapped_state), where="then")
        return found


def _until_idle(asked: Asked) -> None:
    """Wait until nothing that the kernel of ``{base}`` reports of itself changes any more."""
    kernel_id = asked.kept["base.kernel"]
    path = f"/api/kernels/{kernel_id}"

    def is_idle() -> bool:
        model = asked.server.get(path).json()
        return bool(model["execution_state"] == "idle" and model["connections"] == 0)

    asked.server.execute(kernel_id, "")
    wait_until(is_idle, 20, "the kernel was idle")


def _cookie(reply: httpx.Response, name: str) -> str:
    [found] = [c for c in reply.headers.get_list("Set-Cookie") if c.startswith(f"{name}=")]
    return str(found.partition("=")[2].partition(";")[0])


def _answer(asked: Asked, reply: httpx.Response) -> dict[str, Any]:
    return {
        "status": f"{reply.status_code} {reply.reason_phrase}",
        "headers": asked.headers(reply),
        "body": asked.mapped(reply.text),
    }


def _differences(stock: Any, ours: Any, where: str = "") -> list[str]:
    """Return the places where two values differ, with both; texts that are JSON by their fields."""
    if type(stock) is type(ours) is dict and [*stock] == [*ours]:
        return [d for key in stock for d in _differences(stock[key], ours[key], f"{where}.{key}")]
    if type(stock) is type(ours) is list and len(stock) == len(ours):
        pairs = enumerate(zip(stock, ours, strict=True))
        return [d for i, (a, b) in pairs for d in _differences(a, b, f"{where}[{i}]")]
    if stock == ours:
        return []
    if isinstance(stock, str) and isinstance(ours, str):
        try:
            found = _differences(json.loads(stock), json.loads(ours), where)
        except ValueError:
            found = []
        if found:
            return found
    return [f"{where.lstrip('.')}: {stock!r:.2000} != {ours!r:.2000}"]


def documented_rules() -> list[str]:
    """Return the first column of the table of differences."""
    section = DOCUMENT.read_text().partition("## Differences from jupyter_server")[2]
    return re.findall(r"^\| `([\w-]+)` \|", section.partition("\n## ")[0], re.MULTILINE)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Another two, since the stock one is left with what it should have refused."""
    with Pair(tmp_path_factory.mktemp("refusing"), "/user/me") as pair:
        yield pair


@pytest.mark.parametrize("name", SAME)
def test_ours_answers_as_jupyter_server_does(pair: Pair, name: str) -> None:
    for asked in (pair.stock, pair.ours):
        asked.ids.clear()
    for request in SAME[name]:
        differences = pair.differences(request)
        if request.rule:
            where = {re.sub(r"\d+", "", d.partition(":")[0]) for d in differences}
            assert where == set(request.differs), differences
        else:
            assert differences == [], f"{request.method} {request.path} {request.content!r:.300}"
    pair.both(Asked.end_sessions)
    assert len(pair.stock.server.get("/api/kernels").json()) == 1


def test_ours_answers_as_jupyter_server_does_below_a_base_url(refusing: Pair) -> None:
    for request in BASE_URL:
        assert refusing.differences(request) == [], f"{request.method} {request.path}"


@pytest.mark.parametrize(
    "request_",
    REFUSED,
    ids=lambda r: f"{r.rule}: {r.method} {r.content!r:.50}",
)
def test_ours_refuses_what_it_says_and_changes_nothing(refusing: Pair, request_: Refused) -> None:
    before = refusing.ours.state()
    stock, ours = refusing.both(lambda asked: asked.send(request_))
    undo(refusing.stock, stock)
    assert stock.status_code == request_.stock, stock.text
    assert ours.status_code == request_.here, ours.text
    model = ours.json()
    assert [*model] == ["message", "reason"]
    assert model["reason"] is None
    assert request_.names in model["message"]
    assert model["message"] != stock.json().get("message")
    reference = refusing.ours.send(Request(method="POST", path=SESSIONS))
    assert refusing.ours.headers(ours) == refusing.ours.headers(reference)
    assert refusing.ours.state() == before


def undo(asked: Asked, reply: httpx.Response) -> None:
    """Undo what the stock server should not have done."""
    if reply.status_code == 200:
        base = {"path": "base.ipynb", "name": "base.ipynb", "type": "notebook"}
        undone = asked.server.patch(f"{SESSIONS}/{asked.kept['base']}", base)
        assert undone.status_code == 200, undone.text
    if reply.status_code == 201 and reply.json()["kernel"]["id"] != asked.kept["base.kernel"]:
        asked.delete(reply.json()["id"])


def at_once(server: Server, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    """POST all of them together."""
    barrier = Barrier(len(bodies))

    def post(body: dict[str, Any]) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=30) as client:
            client.get(f"{server.url}/api")  # a connection that is made already
            barrier.wait(20)
            login = {"Authorization": f"token {server.token}"}
            return client.post(server.url + SESSIONS, json=body, headers=login)

    with ThreadPoolExecutor(len(bodies)) as threads:
        return list(threads.map(post, bodies))


def test_posts_for_one_path_at_once_make_one_session(refusing: Pair) -> None:
    for _ in range(ATTEMPTS):
        ids = []
        for asked in (refusing.stock, refusing.ours):
            replies = at_once(asked.server, [{"path": "at-once.ipynb", "type": "notebook"}] * 4)
            assert {reply.status_code for reply in replies} == {201}
            ids.append({reply.json()["id"] for reply in replies})
            asked.end_sessions()
        assert len(ids[1]) == 1
        if len(ids[0]) > 1:
            return
    pytest.fail("jupyter_server does the same")


def test_posts_with_one_new_kernel_id_at_once_start_one_kernel(refusing: Pair) -> None:
    for _ in range(ATTEMPTS):
        kernel = {"id": str(uuid4()), "name": "python3"}
        bodies = [{"path": f"{kernel['id']}-{n}", "type": "x", "kernel": kernel} for n in range(6)]
        stock, ours = (at_once(asked.server, bodies) for asked in (refusing.stock, refusing.ours))
        created = [reply.json() for reply in ours if reply.status_code == 201]
        assert {model["kernel"]["id"] for model in created} == {kernel["id"]}
        refusing.ours.delete(created[0]["id"])
        assert {reply.status_code for reply in ours} <= {201, 409}
        if 500 in {reply.status_code for reply in stock}:
            return
    pytest.fail("jupyter_server does the same")


def test_every_difference_is_documented_and_every_documented_one_is_shown() -> None:
    shown = {request.rule for requests in SAME.values() for request in requests}
    shown |= {request.rule for request in REFUSED} | ELSEWHERE
    documented = documented_rules()
    assert sorted(documented) == sorted(shown - {""})


def test_enough_is_asked() -> None:
    same = sum(len(requests) for requests in SAME.values()) + len(FIRST) + len(BASE_URL)
    assert same >= 150
    assert same + len(REFUSED) >= 250
