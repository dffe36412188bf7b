"""Sessions follow what the server does to their documents."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from clients import new_session, sessions
from homes import history
from servers import Home, Server, kernel_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


EMPTY: dict[str, Any] = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def notebook(server: Server, path: str) -> None:
    body = {"type": "notebook", "content": EMPTY}
    assert server.request("PUT", f"/api/contents/{path}", body).status_code in (200, 201)


def folder(server: Server, path: str) -> None:
    assert server.request("PUT", f"/api/contents/{path}", {"type": "directory"}).status_code == 201


def rename(server: Server, source: str, target: str) -> None:
    assert server.patch(f"/api/contents/{source}", {"path": target}).status_code == 200


def where(server: Server) -> list[tuple[str, str | None]]:
    return [(s["path"], s["name"]) for s in sessions(server)]


def test_a_session_is_renamed_with_its_document(home: Home, server: Server) -> None:
    notebook(server, "a.ipynb")
    session = new_session(server, "a.ipynb", name="a.ipynb")
    own_name = new_session(server, "/a.ipynb", name="mine", kernel={"id": session["kernel"]["id"]})
    rename(server, "a.ipynb", "b.ipynb")
    wait_until(lambda: where(server)[0][0] == "b.ipynb", 10, "it followed")
    assert where(server) == [("b.ipynb", "b.ipynb"), ("b.ipynb", "mine")]
    # What JupyterLab says next is no news.
    body = {"path": "b.ipynb", "name": "b.ipynb", "type": "notebook"}
    assert server.patch(f"/api/sessions/{session['id']}", body).status_code == 200
    assert [action for action, *_ in history(home, session["id"])] == ["created", "renamed"]
    assert [s["id"] for s in sessions(server)] == [session["id"], own_name["id"]]


def test_a_client_that_renames_at_the_same_time_is_not_fought(home: Home, server: Server) -> None:
    notebook(server, "0.ipynb")
    session = new_session(server, "0.ipynb", name="0.ipynb")
    for number in range(1, 20):
        path = f"{number}.ipynb"
        client = threading.Thread(
            target=server.patch, args=(f"/api/sessions/{session['id']}", {"path": path})
        )
        client.start()
        rename(server, f"{number - 1}.ipynb", path)
        client.join()
        wait_until(lambda path=path: where(server)[0][0] == path, 10, "it followed")  # type: ignore[misc]
    renames = [detail for action, detail, _ in history(home, session["id"]) if action == "renamed"]
    assert renames == [f"from {number}.ipynb" for number in range(19)]


def test_sessions_below_a_folder_follow_it_but_for_paths_that_jupyterlab_makes_up(
    server: Server,
) -> None:
    folder(server, "work")
    notebook(server, "work/a.ipynb")
    first = new_session(server, "work/a.ipynb", name="a.ipynb")
    kernel = {"id": first["kernel"]["id"]}
    temporary, console = f"work/{uuid4()}", f"work/console-1-{uuid4()}"
    new_session(server, temporary, kernel=kernel)
    new_session(server, console, type="console", kernel=kernel)
    new_session(server, "work2/a.ipynb", kernel=kernel)
    rename(server, "work", "done")
    wait_until(lambda: where(server)[0] == ("done/a.ipynb", "a.ipynb"), 10, "it followed")
    assert [path for path, _ in where(server)[1:]] == [temporary, console, "work2/a.ipynb"]


def test_a_dormant_session_follows_its_document(home: Home, server: Server) -> None:
    notebook(server, "a.ipynb")
    session = new_session(server, "a.ipynb")
    server.delete(f"/api/kernels/{session['kernel']['id']}")
    rename(server, "a.ipynb", "b.ipynb")
    wait_until(lambda: history(home, session["id"])[-1][0] == "renamed", 10, "it followed")
    other = new_session(server, "a.ipynb")
    assert other["id"] != session["id"]
    assert new_session(server, "b.ipynb")["id"] == session["id"]


@pytest.mark.parametrize("below", [True, False])
def test_a_session_ends_with_its_document(
    home: Home, server_factory: Callable[..., Server], below: bool
) -> None:
    # Not into this machine's trash.
    options = [
        "--FileContentsManager.delete_to_trash=False",
        "--FileContentsManager.always_delete_dir=True",
    ]
    with server_factory(args=options) as server:
        folder(server, "work")
        notebook(server, "work/a.ipynb")
        notebook(server, "work/b.ipynb")
        live, dormant = (new_session(server, f"work/{name}.ipynb") for name in "ab")
        console = new_session(server, f"work/console-1-{uuid4()}", type="console")
        assert server.delete(f"/api/kernels/{dormant['kernel']['id']}").status_code == 204
        # A kernel whose folder goes while it starts would end, and could not be started again.
        server.execute(console["kernel"]["id"], "pass")
        for path in ["work"] if below else ["work/a.ipynb", "work/b.ipynb"]:
            assert server.delete(f"/api/contents/{path}").status_code == 204
        wait_until(lambda: len(kernel_processes(home)) == 1, 10, "its kernel ended")
        assert [s["id"] for s in sessions(server)] == [console["id"]]

        def last(session: dict[str, Any]) -> tuple[str, str]:
            return history(home, session["id"])[-1][:2]

        gone = ("deleted", "its document was deleted")
        wait_until(lambda: [last(s) for s in (live, dormant)] == [gone] * 2, 10, "it is history")
        assert new_session(server, "work/b.ipynb")["id"] != dormant["id"]


def test_a_document_that_is_copied_or_saved_changes_no_session(server: Server) -> None:
    notebook(server, "a.ipynb")
    session = new_session(server, "a.ipynb")
    assert server.post("/api/contents", {"copy_from": "a.ipynb"}).status_code == 201
    notebook(server, "a.ipynb")
    rename(server, "a-Copy1.ipynb", "c.ipynb")
    assert [(s["id"], s["path"]) for s in sessions(server)] == [(session["id"], "a.ipynb")]
