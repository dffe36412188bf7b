"""What administrators do to sessions and kernels, to one of them and to many at once."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from administered import UNKNOWN, Administered, administered_server
from clients import running_session
from homes import state_folder
from scrapes import Scrape
from servers import Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administered]:
    yield from administered_server(tmp_path_factory)


@pytest.fixture
def admin(shared: Administered) -> Administered:
    shared.clear()
    return shared


def kernel_ids(admin: Administered) -> list[str]:
    return [item["id"] for item in admin.get("/kernels")["items"]]


def do(admin: Administered, session_id: str, action: str) -> tuple[int, dict[str, Any]]:
    reply = admin.ask("POST", f"/sessions/{session_id}/{action}")
    return reply.status_code, reply.json()


# -------------------------------------------------------------------------- one session


def test_a_deleted_session_is_gone_with_its_kernel(admin: Administered) -> None:
    session_id = admin.live("a.ipynb")["id"]
    assert admin.ask("DELETE", f"/sessions/{session_id}").status_code == 204
    assert (admin.ids(), kernel_ids(admin)) == ([], [])
    assert admin.ask("DELETE", f"/sessions/{session_id}").status_code == 404
    dormant = admin.dormant("b.ipynb")
    assert admin.ask("DELETE", f"/sessions/{dormant}").status_code == 204
    assert admin.ids() == []


def test_the_kernel_of_a_forgotten_session_goes_on_and_is_attached_again(
    server: Server,
) -> None:
    admin = Administered(server)
    session = running_session(server)
    kernel_id = session["kernel"]["id"]
    server.execute(kernel_id, "x = 42")
    reply = admin.ask("DELETE", f"/sessions/{session['id']}?keep_kernel=true")
    assert reply.status_code == 204
    assert server.get("/api/sessions").json() == []
    [kernel] = admin.get("/kernels")["items"]
    assert (kernel["id"], kernel["sessions"]) == (kernel_id, [])
    # Without a session it survives the server, too.
    server.restart()
    assert admin.ask("DELETE", "/sessions/x?keep_kernel=perhaps").status_code == 400
    reply = admin.ask("POST", f"/kernels/{kernel_id}/attach", {"path": "b.ipynb", "name": "b"})
    assert reply.status_code == 201
    attached = reply.json()
    assert server.get(reply.headers["Location"]).json()["id"] == attached["id"]
    assert (attached["path"], attached["name"], attached["type"]) == ("b.ipynb", "b", "notebook")
    assert server.execute(kernel_id, "print(x)") == "42\n"
    assert [s["id"] for s in server.get("/api/sessions").json()] == [attached["id"]]


def test_a_kernel_is_attached_to_a_dormant_session_but_not_to_a_live_one(
    admin: Administered,
) -> None:
    session_id = admin.dormant("a.ipynb")
    admin.live("b.ipynb")
    kernel_id = admin.server.post("/api/kernels", {}).json()["id"]
    path = f"/kernels/{kernel_id}/attach"
    refused = admin.ask("POST", path, {"path": "b.ipynb"})
    assert (refused.status_code, refused.json()["message"][:6]) == (409, "path: ")
    for body in ({}, {"path": "../b"}, {"path": 1}, {"path": "a", "kernel": {}}):
        assert admin.ask("POST", path, body).status_code == 400
    item = admin.ask("POST", path, {"path": "a.ipynb"}).json()
    assert (item["id"], item["kernel"]["id"]) == (session_id, kernel_id)


def test_an_ended_kernel_leaves_its_sessions_dormant(admin: Administered) -> None:
    session = admin.live("a.ipynb")
    other = admin.live("b.py", type="console", kernel={"id": session["kernel"]["id"]})
    path = f"/kernels/{session['kernel']['id']}"
    assert admin.ask("DELETE", path).status_code == 204
    assert admin.ids(state="dormant") == [session["id"], other["id"]]
    assert kernel_ids(admin) == []
    assert admin.ask("DELETE", path).status_code == 404


def test_a_dormant_session_is_revived_under_its_id(admin: Administered) -> None:
    session_id = admin.dormant("a.ipynb")
    status, item = do(admin, session_id, "revive")
    assert (status, item["id"], item["state"]) == (200, session_id, "live")
    kernel = item["kernel"]["id"]
    status, item = do(admin, session_id, "revive")
    assert (status, item["kernel"]["id"]) == (200, kernel)
    # Of several of one path it is the one that is asked for, if no other is live.
    renamed = admin.dormant("b.ipynb")
    admin.ask("PATCH", f"/sessions/{session_id}", {"name": "a"})
    with_same_path = admin.live("c.ipynb")["id"]
    admin.server.delete(f"/api/kernels/{admin.item(with_same_path)['kernel']['id']}")
    assert admin.live("b.ipynb")["id"] == renamed
    admin.ask("PATCH", f"/sessions/{renamed}", {"path": "a.ipynb"})
    admin.act("forget", ids=[session_id])
    admin.server.delete(f"/api/kernels/{admin.item(renamed)['kernel']['id']}")
    admin.ask("PATCH", f"/sessions/{with_same_path}", {"path": "d.ipynb"})
    assert do(admin, with_same_path, "revive")[1]["path"] == "d.ipynb"


def test_a_session_is_not_revived_beside_a_live_one_of_its_path(admin: Administered) -> None:
    dormant = admin.dormant("a.ipynb")
    live = admin.live("b.ipynb")["id"]
    other = admin.live("c.ipynb")["id"]
    admin.server.delete(f"/api/kernels/{admin.item(other)['kernel']['id']}")
    # A live session takes a dormant one's path without absorbing it while that is renamed onto it.
    admin.ask("PATCH", f"/sessions/{dormant}", {"path": "b.ipynb"})
    status, answer = do(admin, dormant, "revive")
    assert (status, live in answer["message"]) == (409, True)
    assert admin.ids(state="live") == [live]


def test_a_dormant_session_has_no_kernel_to_be_restarted(admin: Administered) -> None:
    session_id = admin.dormant("a.ipynb")
    for action in ("interrupt", "restart"):
        assert do(admin, session_id, action)[0] == 409
    reply = admin.ask("PATCH", f"/sessions/{session_id}", {"kernel": {"name": "minimal"}})
    assert (reply.status_code, "revive it" in reply.json()["message"]) == (409, True)
    assert kernel_ids(admin) == []


def test_a_kernel_is_interrupted_and_restarted(server: Server) -> None:
    admin = Administered(server)
    session = running_session(server)
    kernel_id = session["kernel"]["id"]
    code = (
        "import signal\ntry:\n    signal.pause()\nexcept KeyboardInterrupt:\n    print('stopped')"
    )
    code = f"open('waits', 'w').close()\n{code}"
    with ThreadPoolExecutor(1) as threads:
        cell = threads.submit(server.execute, kernel_id, code)
        wait_until(server.home.root_dir.joinpath("waits").exists, 20, "the cell ran")
        assert do(admin, session["id"], "interrupt")[0] == 200
        assert cell.result(20) == "stopped\n"
    server.execute(kernel_id, "x = 1")
    status, item = do(admin, session["id"], "restart")
    assert (status, item["kernel"]["id"]) == (200, kernel_id)
    assert server.execute(kernel_id, "print('x' in globals())") == "False\n"


# -------------------------------------------------------------------------- many sessions


def insert_dormant(admin: Administered, count: int) -> list[str]:
    """Bring in dormant sessions, and return their ids."""
    ids = [f"{number:08d}-1111-4111-8111-111111111111" for number in range(count)]
    header = b'{"format":"jupyter_sessions_ext","version":1,"exported_at":"2026-01-01T00:00:00Z"}'
    line = (
        b'{"session":{"id":"%b","path":"bulk/%b.ipynb","name":null,"type":"notebook",'
        b'"kernel_id":null,"kernel_name":"minimal","state":"dormant","reason":"",'
        b'"created_at":"2026-01-01T00:00:00Z","created_by":"ada","since":"2026-01-01T00:00:00Z"}}'
    )
    lines = [header, *(line % (i.encode(), i.encode()) for i in ids)]
    reply = admin.ask("POST", "/import", content=b"\n".join(lines))
    assert reply.json()["sessions"] == count, reply.text
    return ids


def commits(admin: Administered) -> float:
    scrape = Scrape.of(admin.server.get("/metrics").text)
    return scrape("store_commit_seconds_count")


@pytest.mark.parametrize("action", ["delete", "forget"])
def test_two_hundred_sessions_without_kernels_are_deleted_in_one_transaction(
    admin: Administered, action: str
) -> None:
    ids = insert_dormant(admin, 200)
    live = admin.live("a.ipynb")["id"]
    before = commits(admin)
    answer = admin.act(action, filter={"path": "bulk/*"})
    assert commits(admin) == before + 1
    assert answer["succeeded"] == 200
    assert [result["id"] for result in answer["results"]] == ids
    assert {result["status"] for result in answer["results"]} == {204}
    assert admin.ids() == [live]
    uri = f"{(state_folder(admin.server.home) / 'sessions.sqlite').as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        query = "SELECT count(*) FROM event WHERE action='deleted' AND session_id LIKE '0000%'"
        [[events]] = database.execute(query)
    assert events >= 200


def test_each_session_has_its_result(admin: Administered) -> None:
    live = admin.live("a.ipynb")["id"]
    dormant = admin.dormant("b.ipynb")
    ids = [live, UNKNOWN, dormant, live]
    for action, statuses in (
        ("interrupt", [200, 404, 409]),
        ("restart", [200, 404, 409]),
        ("revive", [200, 404, 200]),
        ("delete", [204, 404, 204]),
    ):
        tried = admin.act(action, ids=ids, dry_run=True)
        answer = admin.act(action, ids=ids)
        assert [result["status"] for result in answer["results"]] == statuses, action
        assert [result["id"] for result in answer["results"]] == [live, UNKNOWN, dormant]
        assert answer["failed"] == sum(status >= 400 for status in statuses)
        for result in answer["results"]:
            assert bool(result["message"]) is (result["status"] >= 400)
        assert tried == {**answer, "dry_run": True}
    assert (admin.ids(), kernel_ids(admin)) == ([], [])


def test_a_dry_run_does_nothing(admin: Administered) -> None:
    live = admin.live("a.ipynb")["id"]
    dormant = admin.dormant("b.ipynb")
    before = [admin.item(i)["kernel"] for i in (live, dormant)]
    events = admin.get("/events")["total"]
    for action in ("delete", "forget", "interrupt", "restart", "revive"):
        answer = admin.act(action, all=True, dry_run=True)
        assert [result["path"] for result in answer["results"]] == ["a.ipynb", "b.ipynb"]
    assert [admin.item(i)["kernel"] for i in (live, dormant)] == before
    assert admin.get("/events")["total"] == events


def test_many_kernels_are_ended_and_started_at_once(admin: Administered) -> None:
    ids = [admin.live(f"{number}.ipynb")["id"] for number in range(10)]
    assert admin.act("restart", filter={"state": "live"})["succeeded"] == 10
    assert admin.act("forget", ids=ids[:1])["succeeded"] == 1
    kernels = kernel_ids(admin)
    assert len(kernels) == 10
    for kernel_id in kernels:
        admin.server.delete(f"/api/kernels/{kernel_id}")
    assert admin.ids(state="dormant") == ids[1:]
    assert admin.act("revive", all=True)["succeeded"] == 9
    assert sorted(admin.ids(state="live")) == sorted(ids[1:])
    assert admin.act("delete", filter={"q": ".ipynb"})["succeeded"] == 9
    assert kernel_ids(admin) == []


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({}, "action"),
        ({"action": "explode", "all": True}, "action"),
        ({"action": "delete"}, "all"),
        ({"action": "delete", "all": False}, "all"),
        ({"action": "delete", "filter": {}}, "all"),
        ({"action": "delete", "filter": {"path": "*"}}, "all"),
        ({"action": "delete", "filter": {}, "dry_run": True}, "all"),
        ({"action": "delete", "ids": []}, "ids"),
        ({"action": "delete", "ids": ["a"], "all": True}, "ids"),
        ({"action": "delete", "ids": ["a"], "filter": {"q": "a"}}, "ids"),
        ({"action": "delete", "ids": "a"}, "ids"),
        ({"action": "delete", "ids": [1]}, "ids[0]"),
        ({"action": "delete", "filter": {"colour": "red"}}, "filter.colour"),
        ({"action": "delete", "filter": {"state": "asleep"}}, "filter.state"),
        ({"action": "delete", "filter": {"idle_longer_than": -1}}, "filter.idle_longer_than"),
        ({"action": "delete", "all": "yes"}, "all"),
        ({"action": "delete", "all": True, "force": True}, "force"),
    ],
)
def test_a_wrong_request_for_many_is_refused_by_its_field(
    shared: Administered, body: dict[str, Any], name: str
) -> None:
    before = shared.get("/events")["total"]
    reply = shared.ask("POST", "/sessions/actions", body)
    assert reply.status_code == 400
    assert reply.json()["message"].startswith(f"{name}: ")
    assert shared.get("/events")["total"] == before
