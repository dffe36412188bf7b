"""The list of sessions, and one of them, as administrators see them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from administered import ROOT, UNKNOWN, Administered, administered_server
from clients import running_session
from servers import Home, Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
block = bytearray(80_000_000)
for i in range(0, len(block), 4096): block[i] = 1
while True: pass
'''])
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administered]:
    yield from administered_server(tmp_path_factory)


@pytest.fixture
def admin(shared: Administered) -> Administered:
    shared.clear()
    return shared


def test_an_item_tells_all_of_the_core_model_and_what_its_kernel_uses(server: Server) -> None:
    admin = Administered(server)
    session = running_session(server)
    kernel_id = session["kernel"]["id"]
    alone = admin.item(session["id"])
    [core] = server.get("/api/sessions").json()
    assert {name: alone[name] for name in core} == core
    assert alone["state"] == "live"
    assert alone["kernel_name"] == "python3"
    assert alone["adoptions"] == 0
    pid = int(server.execute(kernel_id, "import os; print(os.getpid())"))
    assert alone["process"]["pid"] == pid
    assert 20e6 < alone["process"]["memory_bytes"] < 200e6

    server.execute(kernel_id, CHILD)
    busy = wait_until(lambda: uses(admin, session["id"], 110e6), 30, "the child process was seen")
    assert busy["cpu_percent"] > 30
    assert busy["pid"] == pid
    assert admin.get("/kernels")["items"][0]["process"] == busy
    assert admin.ids(sort="-memory") == [session["id"]]

    server.restart()
    assert admin.item(session["id"])["adoptions"] == 1
    server.execute(kernel_id, "child.kill(); child.wait()")
    wait_until(lambda: not uses(admin, session["id"], 110e6), 30, "the child process was gone")


def uses(admin: Administered, session_id: str, memory: float) -> dict[str, float]:
    process: dict[str, float] = admin.item(session_id)["process"]
    return process if process["memory_bytes"] > memory else {}


def test_a_dormant_session_is_an_item_without_a_kernel(admin: Administered) -> None:
    session_id = admin.dormant("a.ipynb")
    item = admin.item(session_id)
    assert item["kernel"] is None
    assert item["process"] is None
    assert (item["state"], item["reason"]) == ("dormant", "shut down")
    assert item["last_activity"] == item["since"] > item["created_at"]
    assert item["connections"] == item["adoptions"] == 0
    assert "kernel" not in item["links"]
    assert admin.server.get("/api/sessions").json() == []


def test_sessions_are_filtered_and_sorted(admin: Administered) -> None:
    first = admin.live("work/b.ipynb")["id"]
    second = admin.dormant("a.ipynb")
    third = admin.live("work/C.py", type="console")["id"]
    assert admin.ids() == [first, second, third]
    for parameters, expected in (
        ({"sort": "-created_at"}, [third, second, first]),
        ({"sort": "path"}, [second, third, first]),
        ({"sort": "-path"}, [first, third, second]),
        ({"state": "live"}, [first, third]),
        ({"state": "dormant"}, [second]),
        ({"type": "console"}, [third]),
        ({"kernel_name": "minimal"}, [first, second, third]),
        ({"kernel_name": "other"}, []),
        ({"path": "work/*"}, [first, third]),
        ({"path": "*/c.py"}, []),
        ({"q": "c.PY"}, [third]),
        ({"q": "shut down"}, [second]),
        ({"q": first[:13].upper()}, [first]),
        ({"idle_longer_than": "0"}, [first, second, third]),
        ({"idle_longer_than": "3600"}, []),
        ({"state": "live", "type": "notebook", "path": "*b*"}, [first]),
    ):
        assert admin.ids(**parameters) == expected, parameters
    page = admin.get("/sessions", limit=2)
    assert (len(page["items"]), page["total"]) == (2, 3)
    page = admin.get("/sessions", limit=2, cursor=page["next"])
    assert ([item["id"] for item in page["items"]], page["next"]) == ([third], None)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("state=asleep", "state"),
        ("state=live&state=dormant", "state"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("sort=size", "sort"),
        ("sort=--path", "sort"),
        ("cursor=x", "cursor"),
        ("idle_longer_than=-1", "idle_longer_than"),
        ("idle_longer_than=nan", "idle_longer_than"),
        ("path=%00", "path"),
        ("q=%ff", "q"),
        (f"q={'x' * 4097}", "q"),
        ("colour=red", "colour"),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name(
    shared: Administered, query: str, name: str
) -> None:
    reply = shared.ask("GET", f"/sessions?{query}")
    assert reply.status_code == 400
    assert reply.json()["message"].startswith(f"{name}: ")


def test_what_jupyter_adds_to_a_query_is_no_parameter(shared: Administered) -> None:
    query = f"?token={shared.server.token}&no_track_activity=1&1700000000000"
    assert shared.ask("GET", f"/sessions{query}", token=None).status_code == 200


def test_a_list_that_is_the_same_is_not_sent_again(admin: Administered) -> None:
    session_id = admin.dormant("a.ipynb")
    for path in ("/sessions", "/kernels", "/events", f"/sessions/{session_id}"):
        first = admin.ask("GET", path)
        again = admin.ask("GET", path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    tag = {"If-None-Match": admin.ask("GET", "/sessions").headers["ETag"]}
    admin.dormant("b.ipynb")
    assert admin.ask("GET", "/sessions", headers=tag).status_code == 200


def test_a_change_of_what_has_changed_meanwhile_is_refused(admin: Administered) -> None:
    session = admin.live("a.ipynb")
    path = f"/sessions/{session['id']}"
    tag = admin.ask("GET", path).headers["ETag"]
    admin.server.execute(session["kernel"]["id"], "pass")
    busy = admin.ask("GET", path).headers["ETag"]
    assert busy != tag  # as the item differs
    changed = admin.ask("PATCH", path, {"path": "b.ipynb"}, headers={"If-Match": f'"x-y", {tag}'})
    assert (changed.status_code, changed.json()["path"]) == (200, "b.ipynb")
    for stale in (tag, busy, '"x-y"', "", "W/" + changed.headers["ETag"]):
        reply = admin.ask("PATCH", path, {"path": "c.ipynb"}, headers={"If-Match": stale})
        assert reply.status_code == 412, stale
        assert "read it again" in reply.json()["message"]
    assert admin.item(session["id"])["path"] == "b.ipynb"
    new = changed.headers["ETag"]
    for tag in (new, "*"):
        reply = admin.ask("PATCH", path, {"name": tag}, headers={"If-Match": tag})
        assert (reply.status_code, reply.json()["name"]) == (200, tag)
    # A state that has changed counts, too; and a kernel is not started for nothing.
    tag = admin.ask("GET", path).headers["ETag"]
    admin.server.delete(f"/api/kernels/{session['kernel']['id']}")
    assert admin.ask("PATCH", path, {"name": "n"}, headers={"If-Match": tag}).status_code == 412


def test_of_two_conditional_changes_at_once_one_is_made(
    admin: Administered,
) -> None:
    session = admin.live("a.ipynb")
    path = f"/sessions/{session['id']}"
    tag = {"If-Match": admin.ask("GET", path).headers["ETag"]}
    kernel = {"kernel": {"name": "minimal"}}
    bodies = [{"path": "b.ipynb"}, {"path": "c.ipynb"}, kernel, kernel]
    with ThreadPoolExecutor(len(bodies)) as threads:
        replies = threads.map(lambda body: admin.ask("PATCH", path, body, headers=tag), bodies)
        statuses = [reply.status_code for reply in replies]
    assert sorted(statuses) == [200, 412, 412, 412]
    assert len(admin.server.get("/api/kernels").json()) == 1


def test_a_session_is_changed(admin: Administered) -> None:
    session = admin.live("a.ipynb")
    path = f"/sessions/{session['id']}"
    other = admin.live("other.ipynb")["kernel"]["id"]
    body = {"path": "b.py", "name": "b", "type": "console", "kernel": {"id": other}}
    item = admin.ask("PATCH", path, body).json()
    assert (item["path"], item["name"], item["type"]) == ("b.py", "b", "console")
    assert item["kernel"]["id"] == other
    assert admin.ask("PATCH", path, {"name": None}).json()["name"] is None
    item = admin.ask("PATCH", path, {"kernel": {"name": "minimal"}}).json()
    assert item["kernel"]["id"] not in (other, session["kernel"]["id"])


def test_a_dormant_session_is_renamed(admin: Administered) -> None:
    session_id = admin.dormant("a.ipynb")
    item = admin.ask("PATCH", f"/sessions/{session_id}", {"path": "b.ipynb"}).json()
    assert (item["path"], item["state"]) == ("b.ipynb", "dormant")
    assert admin.live("b.ipynb")["id"] == session_id
    assert [e["action"] for e in admin.get("/events", session=session_id)["items"]] == [
        *("revived", "renamed", "dormant", "created")
    ]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"path": 5}, 400, "path: "),
        ({"path": "../a"}, 400, "path: "),
        ({"path": None}, 400, "path: "),
        ({"kernel": {}}, 400, "kernel: "),
        ({"kernel": {"name": ""}}, 400, "kernel: "),
        ({"kernel": {"name": "none"}}, 400, "kernel.name: "),
        ({"kernel": {"id": "none"}}, 400, "kernel.id: "),
        ({"kernel": {"id": "a", "name": "b"}}, 400, "kernel: "),
        ({"kernel": {"colour": "red"}}, 400, "kernel.colour: "),
        ({"colour": "red"}, 400, "colour: "),
        ({"type": "x" * 257}, 400, "type: "),
        ([], 400, "body: "),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(
    shared: Administered, body: object, status: int, field: str
) -> None:
    session_id = next(iter(shared.ids(state="live")), None) or shared.live("x.ipynb")["id"]
    before = shared.ask("GET", f"/sessions/{session_id}").json()
    reply = shared.ask("PATCH", f"/sessions/{session_id}", body)
    assert (reply.status_code, reply.json()["message"][: len(field)]) == (status, field)
    after = shared.ask("GET", f"/sessions/{session_id}").json()
    assert {**after, "process": None} == {**before, "process": None}


def test_links_lead_below_the_base_url_and_are_escaped(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    with server_factory(base_url="/user/a%20b") as server:
        admin = Administered(server)
        session = admin.live("a b.ipynb")
        server.execute(session["kernel"]["id"], "pass")
        item = admin.item(session["id"])
        assert item["links"] == {
            "self": f"/user/a%20b{ROOT}/sessions/{session['id']}",
            "history": f"/user/a%20b{ROOT}/events?session={session['id']}",
            "log": f"/user/a%20b{ROOT}/sessions/{session['id']}/log",
            "transcript": f"/user/a%20b{ROOT}/sessions/{session['id']}/transcript",
            "kernel": f"/user/a%20b/api/kernels/{session['kernel']['id']}",
        }
        for link in item["links"].values():
            assert server.get(link.removeprefix("/user/a%20b")).status_code == 200


def test_what_is_unknown_is_not_found(shared: Administered) -> None:
    for method, path in (
        ("GET", f"/sessions/{UNKNOWN}"),
        ("PATCH", f"/sessions/{UNKNOWN}"),
        ("DELETE", f"/sessions/{UNKNOWN}"),
        ("GET", f"/sessions/{UNKNOWN}/log"),
        ("GET", f"/sessions/{UNKNOWN}/transcript"),
        ("POST", f"/sessions/{UNKNOWN}/revive"),
        ("POST", f"/sessions/{UNKNOWN}/interrupt"),
        ("POST", f"/sessions/{UNKNOWN}/restart"),
        ("DELETE", f"/kernels/{UNKNOWN}"),
        ("POST", f"/kernels/{UNKNOWN}/attach"),
    ):
        reply = shared.ask(method, path, {"path": "a"} if method in ("PATCH", "POST") else None)
        assert reply.status_code == 404, (method, path)
        assert UNKNOWN in reply.json()["message"]
