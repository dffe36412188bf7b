"""Sessions and kernels survive the server: real servers, real kernels, real signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import psutil
import pytest
from clients import KERNEL, kernel_state, new_session, sessions, until_idle
from homes import kernel_process
from servers import Home, Server, execute_request, kernel_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENTS = [
    {"path": "a.ipynb", "type": "notebook", "name": "a.ipynb"},
    {"path": "folder/b.ipynb", "type": "notebook", "name": "b.ipynb"},
    {"path": "c.py", "type": "file", "name": ""},
    {"path": "console-1", "type": "console", "name": "Console 1"},
    {"path": "ünïcode π.ipynb", "type": "notebook", "name": "ünïcode π"},
    {"path": "f.ipynb", "type": "notebook", "name": "f"},
]


def lasting(model: dict[str, Any]) -> tuple[Any, ...]:
    kernel = model["kernel"]
    return (
        *(model[key] for key in ("id", "path", "name", "type")),
        *(kernel[key] for key in ("id", "name", "last_activity")),
    )


@pytest.mark.drill
def test_sessions_and_kernels_come_back_whole_after_each_of_seven_ends(
    home: Home, server: Server
) -> None:
    (home.root_dir / "folder").mkdir()
    with ThreadPoolExecutor(6) as pool:
        models = list(pool.map(lambda d: server.post("/api/sessions", d).json(), DOCUMENTS))
        for number, model in enumerate(models):
            server.execute(model["kernel"]["id"], f"x = {number}")
    pids = sorted(p.pid for p in kernel_processes(home))
    assert len(pids) == 6
    for end in ["kill", "terminate", "kill", "kill", "terminate", "kill", "kill"]:
        for model in models:
            until_idle(server, model["kernel"]["id"])
        before = sorted(map(lasting, sessions(server)))
        assert len(before) == 6
        getattr(server, end)()
        assert sorted(p.pid for p in kernel_processes(home)) == pids
        server.start()
        for model in models:
            until_idle(server, model["kernel"]["id"])
        assert sorted(map(lasting, sessions(server))) == before
        for number, model in enumerate(models):
            kernel_id = model["kernel"]["id"]
            assert server.execute(kernel_id, "print(x)") == f"{number}\n"
    for model in models:
        assert server.delete(f"/api/sessions/{model['id']}").status_code == 204
    assert sessions(server) == []
    assert kernel_processes(home) == []


def test_activity_that_was_shown_is_not_taken_back_by_a_kill_at_once(server: Server) -> None:
    session = new_session(server)
    for number in range(3):
        server.execute(session["kernel"]["id"], f"x = {number}")
        shown = server.get(f"/api/sessions/{session['id']}").json()
        server.kill()
        server.start()
        until_idle(server, session["kernel"]["id"])
        assert lasting(server.get(f"/api/sessions/{session['id']}").json()) == lasting(shown)


def test_an_adopted_kernel_is_interrupted_restarted_and_deleted_like_any_other(
    home: Home, server: Server
) -> None:
    session = new_session(server)
    kernel_id = session["kernel"]["id"]
    server.execute(kernel_id, "import os; os.chdir('/'); x = 1")
    first = kernel_process(home, kernel_id)
    file = home.runtime_dir / f"kernel-{kernel_id}.json"
    ports = json.loads(file.read_text())
    env = {k: v for k, v in first.environ().items() if not k.startswith("JUPYTER_SESSIONS")}
    server.kill()
    server.start()
    assert kernel_process(home, kernel_id) == first

    with closing(server.connect(kernel_id)) as channels:
        channels.send(json.dumps(execute_request("while True: pass", "s")))
        wait_until(lambda: kernel_state(server, kernel_id) == "busy", 20, "the cell ran")
        assert server.post(f"/api/kernels/{kernel_id}/interrupt").status_code == 204
        until_idle(server, kernel_id)
    assert server.execute(kernel_id, "print(x)") == "1\n"

    assert server.post(f"/api/kernels/{kernel_id}/restart").status_code == 200
    second = kernel_process(home, kernel_id)
    assert second.pid != first.pid
    assert json.loads(file.read_text()) == ports
    assert {
        k: v for k, v in second.environ().items() if not k.startswith("JUPYTER_SESSIONS")
    } == env
    code = "import os; print(os.getcwd())"
    assert server.execute(kernel_id, code) == f"{os.path.realpath(home.root_dir)}\n"

    server.restart()  # the restarted process is the one recorded
    assert kernel_process(home, kernel_id) == second
    assert server.delete(f"/api/sessions/{session['id']}").status_code == 204
    assert kernel_processes(home) == []
    assert not file.exists()
    assert server.get(f"/api/kernels/{kernel_id}").status_code == 404


def test_an_adopted_kernel_that_crashes_is_restarted_on_its_ports(
    home: Home, server: Server
) -> None:
    session = new_session(server)
    kernel_id = session["kernel"]["id"]
    server.execute(kernel_id, "x = 1")
    ports = (home.runtime_dir / f"kernel-{kernel_id}.json").read_bytes()
    server.args = ["--KernelRestarter.time_to_dead=0.1"]  # it is soon missed
    server.restart()
    first = kernel_process(home, kernel_id)
    with closing(server.connect(kernel_id)) as channels:
        first.kill()

        def restarted() -> bool:
            return any(p.pid != first.pid for p in kernel_processes(home))

        wait_until(restarted, 30, "the kernel was started again")
        channels.settimeout(30)
        while json.loads(channels.recv()).get("content", {}).get("execution_state") != "restarting":
            pass
    assert (home.runtime_dir / f"kernel-{kernel_id}.json").read_bytes() == ports
    until_idle(server, kernel_id)
    assert server.execute(kernel_id, "print('x' in dir())") == "False\n"
    assert [s["id"] for s in sessions(server)] == [session["id"]]
    second = kernel_process(home, kernel_id)
    server.restart()
    assert kernel_process(home, kernel_id) == second


def test_an_adopted_kernel_is_culled_and_its_session_comes_back_under_its_id(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    with server_factory() as server:
        session = new_session(server)
        server.execute(session["kernel"]["id"], "x = 1")
        server.kill()
        server.args = [
            "--MappingKernelManager.cull_idle_timeout=1",
            "--MappingKernelManager.cull_interval=1",
        ]
        server.start()
        wait_until(lambda: not kernel_processes(home), 30, "the kernel was culled")
        wait_until(lambda: sessions(server) == [], 10, "its session was gone")
        assert new_session(server)["id"] == session["id"]


def test_a_cell_that_runs_while_the_server_dies_goes_on_and_can_be_watched(
    home: Home, server: Server
) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    gate = home.root_dir / "gate"
    code = (
        "import os, time\n"
        f"while not os.path.exists({str(gate)!r}): print('tick', flush=True); time.sleep(0.02)\n"
        "x = 40\n"
        "print('released')"
    )
    with closing(server.connect(kernel_id, "client")) as channels:
        channels.send(json.dumps(execute_request(code, "client")))
        wait_until(lambda: kernel_state(server, kernel_id) == "busy", 20, "the cell ran")
        server.kill()
    server.start()
    assert kernel_state(server, kernel_id) == "busy"
    with closing(server.connect(kernel_id, "client", timeout=20)) as channels:
        while json.loads(channels.recv())["content"].get("text") != "tick\n":
            pass
        gate.touch()
        seen: list[dict[str, Any]] = []
        while not any(m["header"]["msg_type"] == "execute_reply" for m in seen):
            seen.append(json.loads(channels.recv()))
    assert "released\n" in "".join(m["content"].get("text", "") for m in seen)
    until_idle(server, kernel_id)
    assert server.execute(kernel_id, "print(x)") == "40\n"


def test_kernels_without_a_session_are_kept_too(server: Server) -> None:
    kernel_id = server.post("/api/kernels", {"name": "python3"}).json()["id"]
    server.execute(kernel_id, "x = 7")
    server.restart()
    assert [k["id"] for k in server.get("/api/kernels").json()] == [kernel_id]
    assert server.execute(kernel_id, "print(x)") == "7\n"
    assert sessions(server) == []
    assert server.delete(f"/api/kernels/{kernel_id}").status_code == 204
    server.restart()
    assert server.get("/api/kernels").json() == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_kernels_end_with_the_server_where_that_is_configured(
    home: Home, server_factory: Callable[..., Server], signum: signal.Signals
) -> None:
    options = ["--SessionsApp.kernels_on_stop=shutdown", "--ServerApp.answer_yes=True"]
    with server_factory(args=options) as server:
        session = new_session(server)
        os.kill(server.pid, signum)
        wait_until(lambda: not server.running, 20, "the server ended")
        assert kernel_processes(home) == []
        server.start()
        assert sessions(server) == []
        assert new_session(server)["id"] == session["id"]


def test_kernels_are_kept_when_the_server_is_stopped_over_rest(home: Home, server: Server) -> None:
    session = new_session(server)
    server.execute(session["kernel"]["id"], "x = 3")
    assert server.post("/api/shutdown").status_code == 200
    wait_until(lambda: not server.running, 20, "the server ended")
    server.start()
    assert server.execute(session["kernel"]["id"], "print(x)") == "3\n"
    assert "jupyter sessions stop --all" in server.log


def test_fifty_posts_at_once_start_one_kernel(home: Home, server: Server) -> None:
    together = threading.Barrier(50)

    def post(_: int) -> tuple[int, str]:
        together.wait()
        reply = server.post("/api/sessions", {"path": "a.ipynb", "type": "notebook", **KERNEL})
        return reply.status_code, reply.json()["id"]

    with ThreadPoolExecutor(50) as pool:
        replies = set(pool.map(post, range(50)))
    assert len(replies) == 1
    assert {status for status, _ in replies} == {201}
    assert len(sessions(server)) == 1
    assert len(kernel_processes(home)) == 1


def test_what_a_kernel_writes_outside_of_cells_goes_to_a_private_bounded_log(
    home: Home, server: Server
) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    server.restart()
    # A pipe or a terminal would block here once its reader is gone and it is full.
    server.execute(kernel_id, "import os; os.system('head -c 300000 /dev/zero | tr \"\\\\0\" x')")
    [log] = (home.data_dir / "jupyter_sessions_ext").glob(f"*/logs/kernel-{kernel_id}.log")
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.stat().st_size >= 300_000


def test_a_rename_survives_and_is_what_the_restarted_kernel_is_told(server: Server) -> None:
    session = new_session(server, "temporary-1")
    reply = server.patch(f"/api/sessions/{session['id']}", {"path": "real.ipynb", "name": "real"})
    assert reply.status_code == 200
    server.restart()
    [found] = sessions(server)
    assert (found["id"], found["path"]) == (session["id"], "real.ipynb")
    kernel_id = found["kernel"]["id"]
    assert server.post(f"/api/kernels/{kernel_id}/restart").status_code == 200
    code = "import os; print(os.environ['JPY_SESSION_NAME'])"
    assert server.execute(kernel_id, code).endswith("/real\n")


def test_changing_the_kernel_of_an_adopted_session_survives(home: Home, server: Server) -> None:
    session = new_session(server)
    server.restart()
    reply = server.patch(f"/api/sessions/{session['id']}", {"kernel": {"name": "python3"}})
    assert reply.status_code == 200
    kernel_id = reply.json()["kernel"]["id"]
    assert kernel_id != session["kernel"]["id"]
    server.execute(kernel_id, "x = 5")
    server.restart()
    assert [s["kernel"]["id"] for s in sessions(server)] == [kernel_id]
    assert server.execute(kernel_id, "print(x)") == "5\n"
    assert len(kernel_processes(home)) == 1


def test_a_jupyterlab_style_rename_onto_a_dormant_path_takes_over_its_history(
    home: Home, server: Server
) -> None:
    old = new_session(server, "a.ipynb")
    kernel_process(home, old["kernel"]["id"]).kill()
    server.kill()
    server.start()
    assert sessions(server) == []
    new = new_session(server, "temporary-2")
    assert new["id"] != old["id"]
    reply = server.patch(f"/api/sessions/{new['id']}", {"path": "a.ipynb"})
    assert (reply.status_code, reply.json()["id"]) == (200, new["id"])
    assert new_session(server, "a.ipynb")["id"] == new["id"]
    server.restart()
    assert [s["id"] for s in sessions(server)] == [new["id"]]


def test_two_clients_that_choose_one_kernel_id_at_once_start_one_process(
    home: Home, server: Server
) -> None:
    kernel_id = str(uuid4())
    together = threading.Barrier(4)

    def post(number: int) -> int:
        together.wait()
        if number % 2:
            return server.post(
                "/api/kernels", {"name": "python3", "kernel_id": kernel_id}
            ).status_code
        body = {"path": f"{number}.ipynb", "type": "notebook", "kernel": {"id": kernel_id}}
        return server.post("/api/sessions", body).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(post, range(4)))
    assert set(statuses) <= {201, 409}
    assert 201 in statuses
    assert len(kernel_processes(home)) == 1
    assert [k["id"] for k in server.get("/api/kernels").json()] == [kernel_id]
    server.restart()
    assert [k["id"] for k in server.get("/api/kernels").json()] == [kernel_id]


def test_the_users_own_manager_classes_are_kept_and_go_on_working(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    options = [
        "--ServerApp.kernel_manager_class=configured.OwnMapping",
        "--ServerApp.session_manager_class=configured.OwnSessions",
    ]
    env = {"PYTHONPATH": os.path.dirname(__file__)}
    with server_factory(args=options, env=env) as server:
        session = new_session(server)
        assert (session["mine"], session["kernel"]["mine"]) == ("session", "kernel")
        server.execute(session["kernel"]["id"], "x = 2")
        server.restart()
        [again] = sessions(server)
        assert (again["mine"], again["kernel"]["mine"]) == ("session", "kernel")
        assert server.execute(session["kernel"]["id"], "print(x)") == "2\n"
        assert server.post(f"/api/kernels/{session['kernel']['id']}/restart").status_code == 200
        code = "import os; print(os.environ['MINE'])"
        assert server.execute(session["kernel"]["id"], code) == "1\n"
        assert server.delete(f"/api/sessions/{session['id']}").status_code == 204
        assert kernel_processes(home) == []


@pytest.mark.parametrize("offset", [0.0, 0.005, 0.01, 0.03, 0.1])
def test_no_kernel_outlives_a_server_that_ends_them_in_the_middle_of_a_start(
    home: Home, server_factory: Callable[..., Server], offset: float
) -> None:
    with server_factory(args=["--SessionsApp.kernels_on_stop=shutdown"]) as server:
        sent = threading.Event()

        def post() -> None:
            sent.set()
            with contextlib.suppress(httpx.TransportError):
                server.post("/api/sessions", {"path": "a.ipynb", "type": "notebook", **KERNEL})

        thread = threading.Thread(target=post)
        thread.start()
        sent.wait()
        threading.Event().wait(offset)  # where in the start the signal comes is what varies
        assert server.terminate() == 0
        thread.join()
        assert kernel_processes(home) == []


def test_a_session_deleted_while_its_kernel_is_being_changed_stays_deleted(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    gate = home.path / "gate"
    fault = "--AsyncMappingKernelManager.kernel_manager_class=configured.WaitsBeforeLaunch"
    env = {"PYTHONPATH": os.path.dirname(__file__), "GATE": str(gate)}
    with server_factory(args=[fault], env=env) as server, ThreadPoolExecutor(1) as pool:
        session = new_session(server)
        url = f"/api/sessions/{session['id']}"
        gate.touch()
        changing = pool.submit(server.patch, url, {"kernel": {"name": "python3"}})
        wait_until((home.path / "gate.reached").exists, 10, "the other kernel was to start")
        assert server.delete(url).status_code == 204
        gate.unlink()
        assert changing.result().status_code == 404
        wait_until(lambda: kernel_processes(home) == [], 10, "no kernel was left")
        assert server.get("/api/kernels").json() == []
        server.restart()
        assert sessions(server) == []
        assert server.get("/api/kernels").json() == []


@pytest.mark.parametrize("body", [{"name": 5}, {"path": 5}, {"type": []}, {"path": "a\0b"}])
def test_what_is_no_text_is_refused_and_the_next_server_starts(
    server: Server, body: dict[str, Any]
) -> None:
    session = new_session(server)
    reply = server.patch(f"/api/sessions/{session['id']}", body)
    assert (reply.status_code, next(iter(body)) in reply.json()["message"]) == (400, True)
    full = {"path": "b.ipynb", "type": "notebook", "name": "b", **body}
    assert server.post("/api/sessions", full).status_code == 400
    server.restart()
    assert [(s["id"], s["path"]) for s in sessions(server)] == [(session["id"], "a.ipynb")]


@pytest.mark.parametrize("kernel_id", ["a/b", "../../x", "x" * 300, "\ud800"])
def test_a_kernel_id_that_cannot_be_used_is_refused(
    home: Home, server: Server, kernel_id: str
) -> None:
    body = {"path": "a.ipynb", "type": "notebook", "kernel": {"id": kernel_id}}
    content = json.dumps(body).encode()
    assert server.request("POST", "/api/sessions", content=content).status_code == 400
    assert sessions(server) == []
    assert kernel_processes(home) == []


def test_a_daemon_that_a_kernel_started_is_never_taken_for_the_kernel(
    home: Home, server: Server
) -> None:
    session = new_session(server)
    kernel_id = session["kernel"]["id"]
    code = "import subprocess; p = subprocess.Popen(['cat'], stdin=subprocess.PIPE, "
    daemon = int(server.execute(kernel_id, code + "start_new_session=True); print(p.pid)"))
    os.kill(daemon, signal.SIGSTOP)  # it does not notice that its input ends with the kernel
    server.kill()
    kernel_process(home, kernel_id).kill()
    server.start()
    assert sessions(server) == []
    assert new_session(server)["id"] == session["id"]
    assert psutil.Process(daemon).status() == psutil.STATUS_STOPPED
