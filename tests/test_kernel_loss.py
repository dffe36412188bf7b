"""Kernels or servers are lost: each test states the invariant that holds afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from clients import new_session, sessions, until_idle
from homes import TESTS, database, kernel_process, without_us
from servers import Home, Server, kernel_processes, wait_until

from jupyter_sessions_ext.host import identify

if TYPE_CHECKING:
    from collections.abc import Callable

# -------------------------------------------------------------------------- kernels that are gone


def test_a_kernel_killed_meanwhile_leaves_a_dormant_session_that_its_path_revives(
    home: Home, server: Server
) -> None:
    lost, kept = new_session(server, "a.ipynb"), new_session(server, "b.ipynb")
    server.kill()
    kernel_process(home, lost["kernel"]["id"]).kill()
    server.start()
    assert [s["id"] for s in sessions(server)] == [kept["id"]]
    assert server.get(f"/api/sessions/{lost['id']}").status_code == 404
    assert server.get(f"/api/kernels/{lost['kernel']['id']}").status_code == 404
    again = new_session(server, "a.ipynb")
    assert again["id"] == lost["id"]
    assert again["kernel"]["id"] != lost["kernel"]["id"]
    assert sorted(s["id"] for s in sessions(server)) == sorted([lost["id"], kept["id"]])


def test_a_pid_that_was_used_again_is_never_signalled(home: Home, server: Server) -> None:
    session = new_session(server)
    server.kill()
    kernel_process(home, session["kernel"]["id"]).kill()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True) as bystander:
        with database(home) as connection:
            [[text]] = connection.execute("SELECT process FROM kernel")
            process = {**json.loads(text), "pid": bystander.pid}
            connection.execute("UPDATE kernel SET process=?", (json.dumps(process),))
        server.start()
        assert sessions(server) == []
        server.delete(f"/api/kernels/{session['kernel']['id']}")
        server.terminate()
        assert bystander.poll() is None
        bystander.kill()


def test_a_half_started_kernel_is_found_with_its_session(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    fault = "--AsyncMappingKernelManager.kernel_manager_class=configured.DiesAfterLaunch"
    with server_factory(args=[fault], env={"PYTHONPATH": str(TESTS)}) as server:
        body = {"path": "a.ipynb", "type": "notebook", "name": "a", "kernel": {"name": "python3"}}
        with pytest.raises(httpx.TransportError):
            server.post("/api/sessions", body)
        wait_until(lambda: not server.running, 10, "the server died")
        server.args = []
        server.start()
        [session] = sessions(server)
        assert (session["path"], session["name"], session["type"]) == ("a.ipynb", "a", "notebook")
        assert len(kernel_processes(home)) == 1
        assert server.execute(session["kernel"]["id"], "print(1)") == "1\n"
        assert server.post(f"/api/kernels/{session['kernel']['id']}/restart").status_code == 200
        assert server.delete(f"/api/sessions/{session['id']}").status_code == 204
        assert kernel_processes(home) == []


def test_a_half_done_change_of_kernel_leaves_the_session_with_the_one_it_had(
    home: Home, server: Server
) -> None:
    session = new_session(server)
    server.execute(session["kernel"]["id"], "x = 1")
    server.kill()
    server.args = ["--AsyncMappingKernelManager.kernel_manager_class=configured.DiesAfterLaunch"]
    server.env = {"PYTHONPATH": str(TESTS)}
    server.start()
    with pytest.raises(httpx.TransportError):
        server.patch(f"/api/sessions/{session['id']}", {"kernel": {"name": "python3"}})
    wait_until(lambda: not server.running, 10, "the server died")
    wait_until(lambda: len(kernel_processes(home)) == 2, 10, "the new kernel is seen as one")
    server.args = []
    server.start()
    assert [s["kernel"]["id"] for s in sessions(server)] == [session["kernel"]["id"]]
    wait_until(lambda: len(kernel_processes(home)) == 1, 10, "the other one was ended")
    assert server.execute(session["kernel"]["id"], "print(x)") == "1\n"


@pytest.mark.parametrize("what", ["sessions", "kernels"])
def test_what_an_interrupted_shutdown_leaves_is_ended_at_the_next_start(
    home: Home, server_factory: Callable[..., Server], what: str
) -> None:
    fault = "--AsyncMappingKernelManager.kernel_manager_class=configured.DiesInShutdown"
    with server_factory(args=[fault], env={"PYTHONPATH": str(TESTS)}) as server:
        session = new_session(server)
        server.execute(session["kernel"]["id"], "")
        target = session["id"] if what == "sessions" else session["kernel"]["id"]
        with pytest.raises(httpx.TransportError):
            server.delete(f"/api/{what}/{target}")
        wait_until(lambda: not server.running, 10, "the server died")
        assert len(kernel_processes(home)) == 1
        server.args = []
        server.start()
        assert sessions(server) == []
        assert server.get("/api/kernels").json() == []
        wait_until(lambda: kernel_processes(home) == [], 10, "the remnant was ended")
        # The kernel alone was to be ended: the session is dormant. The session: it is gone.
        assert (new_session(server)["id"] == session["id"]) == (what == "kernels")


def test_a_kernel_that_cannot_start_does_not_keep_the_server_from_stopping(
    home: Home, server: Server
) -> None:
    folder = home.data_dir / "kernels" / "broken"
    folder.mkdir(parents=True)
    spec = {"argv": ["/nonexistent", "{connection_file}"], "display_name": "b", "language": "b"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    body = {"path": "a.ipynb", "type": "notebook", "kernel": {"name": "broken"}}
    assert server.post("/api/sessions", body).status_code == 500
    assert server.post("/api/kernels", {"name": "broken"}).status_code == 500
    assert sessions(server) == []
    new_session(server)
    server.terminate()
    server.start()
    assert len(sessions(server)) == 1


@pytest.fixture
def provisioned(home: Home, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Install a kernelspec ``provisioned`` whose provisioner is a class of ours."""

    def install(name: str) -> dict[str, str]:
        info = tmp_path / "site" / "provisioned-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: provisioned\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[jupyter_client.kernel_provisioners]\nown = configured:{name}\n"
        )
        folder = home.data_dir / "kernels" / "provisioned"
        folder.mkdir(parents=True)
        spec = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "provisioned",
            "language": "python",
            "metadata": {"kernel_provisioner": {"provisioner_name": "own"}},
        }
        (folder / "kernel.json").write_text(json.dumps(spec))
        return {"PYTHONPATH": f"{TESTS}{os.pathsep}{info.parent}"}

    return install


@pytest.mark.parametrize("name", ["ElsewhereProvisioner", "ScratchProvisioner"])
def test_a_kernel_of_another_provisioner_is_adopted_through_it(
    home: Home,
    server_factory: Callable[..., Server],
    provisioned: Callable[[str], dict[str, str]],
    name: str,
) -> None:
    with server_factory(env=provisioned(name)) as server:
        first = new_session(server, "a.ipynb", kernel={"name": "provisioned"})
        second = new_session(server, "b.ipynb", kernel={"name": "provisioned"})
        server.execute(first["kernel"]["id"], "x = 8")
        server.kill()
        kernel_process(home, second["kernel"]["id"]).kill()
        server.start()
        assert [s["id"] for s in sessions(server)] == [first["id"]]
        assert server.execute(first["kernel"]["id"], "print(x)") == "8\n"
        server.terminate()
        server.start()
        assert server.execute(first["kernel"]["id"], "print(x)") == "8\n"
        assert server.delete(f"/api/sessions/{first['id']}").status_code == 204
        assert kernel_processes(home) == []
        assert not list(home.root_dir.glob(f"scratch-{first['kernel']['id']}"))


def test_a_start_that_fails_after_the_launch_leaves_no_process(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    fault = "--AsyncMappingKernelManager.kernel_manager_class=configured.FailsAfterLaunch"
    with server_factory(args=[fault], env={"PYTHONPATH": str(TESTS)}) as server:
        body = {"path": "a.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
        assert server.post("/api/sessions", body).status_code == 500
        assert server.post("/api/kernels", {"name": "python3"}).status_code == 500
        wait_until(lambda: kernel_processes(home) == [], 10, "no process was left")
        assert server.get("/api/kernels").json() == []
        assert server.terminate() == 0


def test_kernels_that_cannot_be_asked_to_end_are_ended_all_the_same(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    options = [
        "--SessionsApp.kernels_on_stop=shutdown",
        "--AsyncMappingKernelManager.kernel_manager_class=configured.FailsToShutDown",
    ]
    with server_factory(args=options, env={"PYTHONPATH": str(TESTS)}) as server:
        made = [new_session(server, f"{n}.ipynb") for n in range(3)]
        server.execute(made[0]["kernel"]["id"], "")
        url = f"/api/sessions/{made[0]['id']}"
        assert server.delete(url).status_code == 500
        assert server.get(url).json()["id"] == made[0]["id"]
        assert server.terminate() == 0
        assert kernel_processes(home) == []


# -------------------------------------------------------------------------- several servers


@pytest.mark.parametrize("ends", [(0, 1), (1, 0)])
@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_what_two_servers_on_one_folder_leave_is_adopted_by_the_next(
    home: Home, server_factory: Callable[..., Server], ends: tuple[int, int], end: str
) -> None:
    servers = [server_factory().start(), server_factory().start()]
    made = [new_session(s, f"{n}.ipynb") for n, s in enumerate(servers)]
    for number, server in enumerate(servers):
        assert [s["id"] for s in sessions(server)] == [made[number]["id"]]
        server.execute(made[number]["kernel"]["id"], f"x = {number}")
    assert "Another server uses workspace" in servers[1].log
    for index in ends:
        getattr(servers[index], end)()
    third = server_factory().start()
    assert {s["id"] for s in sessions(third)} == {m["id"] for m in made}
    for number, model in enumerate(made):
        until_idle(third, model["kernel"]["id"])
        assert third.execute(model["kernel"]["id"], "print(x)") == f"{number}\n"
    assert len(list((home.data_dir / "jupyter_sessions_ext").iterdir())) == 1
    third.restart()
    assert {s["id"] for s in sessions(third)} == {m["id"] for m in made}


def test_a_second_server_does_not_take_what_the_first_has_taken_over(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    first, second = server_factory().start(), server_factory().start()
    made = [new_session(first, "a.ipynb"), new_session(second, "b.ipynb")]
    second.terminate()
    first.terminate()
    first.start()  # it takes over what the second has left ...
    assert {s["id"] for s in sessions(first)} == {m["id"] for m in made}
    second.start()  # ... whose workspace begins anew
    assert sessions(second) == []
    assert second.get("/api/kernels").json() == []
    second.terminate()
    for model in made:
        assert first.execute(model["kernel"]["id"], "print(1)") == "1\n"


def test_another_hosts_records_are_left_alone(home: Home, server: Server) -> None:
    mine, other = new_session(server, "a.ipynb"), new_session(server, "b.ipynb")
    server.kill()
    with database(home) as connection:
        changed = "UPDATE kernel SET machine='elsewhere' WHERE kernel_id=?"
        connection.execute(changed, (other["kernel"]["id"],))
    server.start()
    assert [s["id"] for s in sessions(server)] == [mine["id"]]
    server.terminate()
    wait_until(lambda: len(kernel_processes(home)) == 2, 10, "the new kernel is seen as one")
    with database(home) as connection:
        rows = connection.execute("SELECT machine FROM kernel ORDER BY rowid").fetchall()
        assert ("elsewhere",) in rows
        states = connection.execute("SELECT state FROM session_detail").fetchall()
        assert states == [("live",), ("live",)]


def test_the_kernels_of_a_server_that_is_not_ours_are_not_touched(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    with server_factory(env=without_us(home)) as stock, server_factory() as ours:
        theirs, mine = new_session(stock), new_session(ours)
        ours.restart()
        assert [s["id"] for s in sessions(ours)] == [mine["id"]]
        ours.terminate(15)
        assert stock.execute(theirs["kernel"]["id"], "print(1)") == "1\n"
        assert identify(kernel_process(home, theirs["kernel"]["id"]).pid) is not None
