"""The list is kept between requests, and yet what each session's own answer says."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from clients import new_session, sessions, until_idle
from servers import Home, Server, kernel_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = """
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

class WithMore(AsyncMappingKernelManager):
    asked = 0

    def kernel_model(self, kernel_id):
        self.asked += 1
        return {**super().kernel_model(kernel_id), "asked": self.asked}
"""


def assert_is_true(server: Server) -> list[dict[str, Any]]:
    """Check the list, and what GET says of each session, against what is made anew every time."""
    listed = sessions(server)
    urls = [f"/api/sessions/{session['id']}" for session in listed]
    # A PATCH of nothing answers the model of the moment.
    made_anew = [server.patch(url, {}).text for url in urls]
    assert listed == [json.loads(text) for text in made_anew]
    assert [server.get(url).text for url in urls] == made_anew
    assert server.get("/api/sessions").text == f"[{', '.join(made_anew)}]"
    return listed


def settle(server: Server) -> None:
    """Run a cell in every kernel: it is idle then, and stays so."""
    for session in sessions(server):
        server.execute(session["kernel"]["id"], "pass")


def test_a_list_shows_every_change_at_once(server: Server, home: Home) -> None:
    first, second = (new_session(server, path) for path in ("a.ipynb", "b.ipynb"))
    url, kernel_id = f"/api/sessions/{first['id']}", first["kernel"]["id"]
    console = {"path": "c", "type": "console", "kernel": {"id": kernel_id}}
    third = server.post("/api/sessions", console).json()
    settle(server)
    assert [s["id"] for s in assert_is_true(server)] == [first["id"], second["id"], third["id"]]

    server.execute(kernel_id, "x = 1")
    [before, *_] = assert_is_true(server)
    with closing(server.connect(kernel_id)):
        wait_until(lambda: sessions(server)[0]["kernel"]["connections"] == 1, 10, "it is counted")
        assert_is_true(server)
    wait_until(lambda: sessions(server)[0]["kernel"]["connections"] == 0, 10, "it is not")
    server.execute(kernel_id, "x = 2")
    assert assert_is_true(server)[0]["kernel"]["last_activity"] > before["kernel"]["last_activity"]

    server.patch(url, {"path": "d/\u2318 \"'\\.ipynb", "name": None})
    assert [s["path"] for s in assert_is_true(server)] == ["d/\u2318 \"'\\.ipynb", "b.ipynb", "c"]
    server.patch(url, {"type": "file"})
    assert "notebook" not in assert_is_true(server)[0]
    server.patch(url, {"kernel": {"name": "python3"}})
    settle(server)
    assert [s["id"] for s in assert_is_true(server)] == [first["id"], second["id"]]
    server.post(f"/api/kernels/{second['kernel']['id']}/restart")
    until_idle(server, second["kernel"]["id"])
    settle(server)
    server.restart()
    until_idle(server, second["kernel"]["id"])
    assert len(assert_is_true(server)) == 2
    server.delete(f"/api/kernels/{second['kernel']['id']}")
    assert len(assert_is_true(server)) == 1
    server.delete(url)
    assert assert_is_true(server) == []
    wait_until(lambda: kernel_processes(home) == [], 10, "no kernel is left")


@pytest.mark.parametrize("manager", ["more_models.WithMore", "SYNC"])
def test_models_of_other_classes_are_asked_for_every_time(
    server_factory: Callable[..., Server], home: Home, manager: str
) -> None:
    (home.path / "more_models.py").write_text(MODULE)
    sync = "jupyter_server.services.kernels.kernelmanager.MappingKernelManager"
    cls = manager.replace("SYNC", sync)
    options = {
        "args": [f"--ServerApp.kernel_manager_class={cls}"],
        "env": {"PYTHONPATH": str(home.path)},
    }
    with server_factory(**options) as server:
        session = new_session(server)
        settle(server)
        asked = [sessions(server)[0]["kernel"].get("asked") for _ in range(2)]
        assert (None in asked) or asked[0] < asked[1]
        server.execute(session["kernel"]["id"], "x = 1")
        assert sessions(server)[0]["kernel"]["execution_state"] == "idle"
        server.delete(f"/api/sessions/{session['id']}")
        assert sessions(server) == []
