"""What jupyter_server can be configured with goes on working, and lasts as README says."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from clients import new_session, sessions, until_idle
from homes import TESTS, kernel_process, state_folder, without_us
from jupyter_client.manager import AsyncKernelManager
from servers import Home, Server, end_keepers, kernel_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

MANAGERS = "jupyter_server.services.kernels.kernelmanager"
PENDING = "--AsyncMultiKernelManager.use_pending_kernels=True"
IPC = "--KernelManager.transport=ipc"
CURVE = "--MappingKernelManager.transport_encryption=required"

needs_curve = pytest.mark.skipif(
    not hasattr(AsyncKernelManager, "transport_encryption"),
    reason="this jupyter_client has no transport encryption",
)


def configured(**variables: object) -> dict[str, str]:
    """Return the environment of a server that can import :mod:`configured`."""
    return {"PYTHONPATH": str(TESTS), **{name: str(value) for name, value in variables.items()}}


def assert_no_error(server: Server) -> None:
    errors = re.findall(r"^\[E .*|^Traceback.*(?:\n .*)*\n.*", server.log, re.MULTILINE)
    assert errors == [], server.log[-4000:]


def use(server: Server) -> dict[str, Any]:
    """Open a session, run a cell, rename it and change its kernel; return what it is then."""
    session = new_session(server, "temporary.ipynb")
    assert server.execute(session["kernel"]["id"], "print(20 + 1)") == "21\n"
    assert [s["id"] for s in sessions(server)] == [session["id"]]
    return change(server, session, "a.ipynb")


def change(server: Server, session: dict[str, Any], path: str) -> dict[str, Any]:
    """Rename a session and give it another kernel, in which ``x`` is then 2."""
    server.execute(session["kernel"]["id"], "")  # one that ends while it starts says so in the log
    url = f"/api/sessions/{session['id']}"
    renamed = server.patch(url, {"path": path, "name": path})
    assert (renamed.status_code, renamed.json()["path"]) == (200, path), renamed.text
    reply = server.patch(url, {"kernel": {"name": "python3"}})
    assert reply.status_code == 200, reply.text
    changed: dict[str, Any] = reply.json()
    assert changed["id"] == session["id"]
    assert changed["kernel"]["id"] != session["kernel"]["id"]
    server.execute(changed["kernel"]["id"], "x = 2")
    assert [key(s) for s in sessions(server)] == [key(changed)]
    return changed


def key(session: dict[str, Any]) -> tuple[str, str, str]:
    return session["id"], session["path"], session["kernel"]["id"]


def assert_lasted(server: Server, session: dict[str, Any]) -> None:
    assert [key(s) for s in sessions(server)] == [key(session)]
    assert server.execute(session["kernel"]["id"], "print(x)") == "2\n"


def end(home: Home, server: Server, session: dict[str, Any]) -> None:
    """Delete the session, and stop the server: nothing is left, and no error was logged."""
    assert server.delete(f"/api/sessions/{session['id']}").status_code == 204
    assert sessions(server) == []
    wait_until(lambda: kernel_processes(home) == [], 20, "the kernel ended")
    assert server.terminate() == 0
    assert_no_error(server)


def live_through(home: Home, server: Server) -> None:
    """Do all that clients do, before and after a server is killed, and lose nothing by it."""
    session = use(server)
    process = kernel_process(home, session["kernel"]["id"])
    server.restart()
    assert kernel_process(home, session["kernel"]["id"]) == process
    assert_lasted(server, session)
    restarted = server.post(f"/api/kernels/{session['kernel']['id']}/restart")
    assert restarted.status_code == 200, restarted.text
    until_idle(server, session["kernel"]["id"])
    assert server.execute(session["kernel"]["id"], "print('x' in dir())") == "False\n"
    session = change(server, session, "b.ipynb")
    server.restart()
    assert_lasted(server, session)
    end(home, server, session)


# ---------------------------------------------------------------------- all of it lasts


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(PENDING, id="pending kernels"),
        pytest.param("--ServerApp.kernel_manager_class=configured.NewPortsMapping", id="new ports"),
        pytest.param("--ServerApp.session_manager_class=configured.RoomSessions", id="rooms"),
        pytest.param(
            "--ServerApp.session_manager_class=configured.ForgetfulRoomSessions", id="no rooms"
        ),
        pytest.param(CURVE, id="curve", marks=needs_curve),
    ],
)
def test_sessions_kernels_and_variables_last_and_everything_can_be_changed_as_before(
    home: Home, server_factory: Callable[..., Server], option: str
) -> None:
    with server_factory(args=[option], env=configured()) as server:
        live_through(home, server)


def test_kernels_that_are_reached_over_sockets_of_the_file_system_last(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    # The name of such a socket may have 107 characters.
    with tempfile.TemporaryDirectory() as short:
        home.runtime_dir = Path(short)
        with server_factory(args=[IPC]) as server:
            live_through(home, server)
            assert list(home.runtime_dir.glob("*-ipc-*")) == []


@needs_curve
def test_an_encrypted_connection_is_encrypted_with_the_same_keys_after_adoption_and_restart(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    with server_factory(args=[CURVE]) as server:
        session = new_session(server)
        kernel_id = session["kernel"]["id"]
        file = home.runtime_dir / f"kernel-{kernel_id}.json"
        connection = json.loads(file.read_text())
        assert len(connection["curve_secretkey"]) == 40
        server.restart()
        assert server.post(f"/api/kernels/{kernel_id}/restart").status_code == 200
        until_idle(server, kernel_id)
        assert json.loads(file.read_text()) == connection
        with pytest.raises(TimeoutError):  # whoever does not know the key is not answered
            ask(connection, timeout=1)
        assert server.execute(kernel_id, "print(1)") == "1\n"
        assert connection["curve_secretkey"] not in server.log


def ask(connection: dict[str, Any], timeout: int) -> None:
    """Ask a kernel for its heartbeat, unencrypted.

    :raises TimeoutError: it did not answer
    """
    with zmq.Context() as context, context.socket(zmq.REQ) as heart:
        heart.linger = 0
        heart.connect(f"tcp://{connection['ip']}:{connection['hb_port']}")
        heart.send(b"ping")
        if not heart.poll(timeout * 1000):
            raise TimeoutError


def test_an_adopted_kernel_is_restarted_on_other_ports_where_its_class_wants_that(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    option = "--ServerApp.kernel_manager_class=configured.NewPortsMapping"
    with server_factory(args=[option], env=configured()) as server:
        kernel_id = new_session(server)["kernel"]["id"]
        file = home.runtime_dir / f"kernel-{kernel_id}.json"

        def ports() -> set[int]:
            return {v for k, v in json.loads(file.read_text()).items() if k.endswith("_port")}

        seen = [ports()]
        for _ in range(2):
            server.restart()
            assert ports() == seen[-1]
            assert server.post(f"/api/kernels/{kernel_id}/restart").status_code == 200
            seen.append(ports())
            until_idle(server, kernel_id)
            assert server.execute(kernel_id, "print(1)") == "1\n"
        assert seen[0] != seen[1] != seen[2]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_kernel_whose_port_was_taken_is_started_on_others(
    home: Home, server_factory: Callable[..., Server], at_once: bool
) -> None:
    option = "--AsyncMappingKernelManager.kernel_manager_class=configured.TakenPort"
    with server_factory(args=[option], env=configured()) as server:
        kernel_id = new_session(server)["kernel"]["id"]
        if not at_once:
            wait_until(lambda: "restarting kernel (1/5)" in server.log, 10, "it was restarted")
        assert server.execute(kernel_id, "print(1)") == "1\n"
        until_idle(server, kernel_id)
        assert server.log.count("restarting kernel") == 1
        server.restart()
        assert server.execute(kernel_id, "print(2)") == "2\n"


def test_what_a_users_kernel_manager_does_at_start_restart_and_end_it_does_for_adopted_kernels_too(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    option = "--AsyncMappingKernelManager.kernel_manager_class=configured.NotingKernel"
    notes = home.path / "notes"
    with server_factory(args=[option], env=configured(NOTES=notes)) as server:
        kernel_id = new_session(server)["kernel"]["id"]
        server.execute(kernel_id, "1")
        server.restart()
        assert notes.read_text() == f"started {kernel_id}\n"
        notes.unlink()
        assert server.post(f"/api/kernels/{kernel_id}/restart").status_code == 200
        assert notes.read_text() == f"restart {kernel_id}\n"
        until_idle(server, kernel_id)
        session = sessions(server)[0]
        assert server.delete(f"/api/sessions/{session['id']}").status_code == 204
        assert notes.read_text() == f"restart {kernel_id}\nshutdown {kernel_id}\n"
        assert server.terminate() == 0
        assert_no_error(server)


@pytest.mark.parametrize(("name", "seen"), [("OwnText", "a ******\n"), ("OwnWay", "a ")])
def test_what_a_users_connection_does_with_output_is_done(
    server_factory: Callable[..., Server], name: str, seen: str
) -> None:
    option = f"--ServerApp.kernel_websocket_connection_class=configured.{name}"
    with server_factory(args=[option], env=configured()) as server:
        kernel_id = new_session(server)["kernel"]["id"]
        code = "print('a ', end='', flush=True); print('sec' 'ret', flush=True)"
        assert server.execute(kernel_id, code) == seen


def test_a_client_that_has_seen_the_end_of_a_cell_is_not_told_that_it_runs(
    server_factory: Callable[..., Server],
) -> None:
    option = "--ServerApp.kernel_manager_class=configured.HearsLate"
    with server_factory(args=[option], env=configured()) as server:
        session = new_session(server)
        for number in range(10):
            server.execute(session["kernel"]["id"], f"x = {number}")
            assert (
                server.get(f"/api/sessions/{session['id']}").json()["kernel"]["execution_state"]
                == "idle"
            )
            assert sessions(server)[0]["kernel"]["execution_state"] == "idle"


def test_a_session_manager_is_told_of_sessions_that_it_has_not_created(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    option = "--ServerApp.session_manager_class=configured.RoomSessions"
    with server_factory(args=[option], env=configured()) as server:
        models = [new_session(server, path) for path in ("a.ipynb", "b.ipynb")]
        kernels = [model["kernel"]["id"] for model in models]
        server.restart()
        wait_until(lambda: [s["room"] for s in sessions(server)] == kernels, 10, "it has rooms")
        assert [s["id"] for s in sessions(server)] == [model["id"] for model in models]
        assert new_session(server, "c.ipynb")["id"] not in [model["id"] for model in models]
        for model in models:
            assert server.delete(f"/api/sessions/{model['id']}").status_code == 204
        assert len(sessions(server)) == 1
        assert "does not know" not in server.log
        assert_no_error(server)


# ---------------------------------------------------------------------- pending kernels


def test_a_pending_kernel_that_cannot_be_started_can_be_deleted_and_is_not_there_afterwards(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    spec = home.data_dir / "kernels" / "broken"
    spec.mkdir(parents=True)
    argv = [str(home.path / "missing"), "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "broken"}))
    broken = {"kernel": {"name": "broken"}}
    with server_factory(args=[PENDING]) as server:
        first, second = (new_session(server, path, **broken) for path in ("a.ipynb", "b.ipynb"))
        wait_until(lambda: server.log.count("No such file or directory") >= 2, 20, "both failed")
        assert server.delete(f"/api/sessions/{first['id']}").status_code == 204
        assert [s["id"] for s in sessions(server)] == [second["id"]]  # as jupyter_server shows it
        url = f"/api/sessions/{second['id']}"
        mended = server.patch(url, {"kernel": {"name": "python3"}})
        assert mended.status_code == 200
        third = new_session(server, "c.ipynb", **broken)
        server.execute(mended.json()["kernel"]["id"], "x = 2")
        server.restart()
        assert_lasted(server, mended.json())
        assert new_session(server, "c.ipynb")["id"] == third["id"]
        assert server.terminate() == 0
        assert len(kernel_processes(home)) == 2


def test_a_pending_kernel_whose_start_fails_when_its_process_runs_leaves_no_process(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    fault = "--AsyncMappingKernelManager.kernel_manager_class=configured.FailsAfterLaunch"
    with server_factory(args=[PENDING, fault], env=configured()) as server:
        session = new_session(server)
        wait_until(lambda: "injected" in server.log, 20, "the start failed")
        assert server.delete(f"/api/sessions/{session['id']}").status_code == 204
        wait_until(lambda: kernel_processes(home) == [], 10, "its process ended")
        assert sessions(server) == []
        assert server.terminate() == 0


# ---------------------------------------------------------------------- part of it lasts


def test_with_a_synchronous_kernel_manager_sessions_are_kept_and_kernels_are_not(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    option = f"--ServerApp.kernel_manager_class={MANAGERS}.MappingKernelManager"
    with server_factory(args=[option]) as server:
        session = use(server)
        server.kill()
        wait_until(lambda: kernel_processes(home) == [], 20, "the kernel ended with the server")
        server.start()
        assert (
            "MappingKernelManager is not asynchronous: its kernels end with the server; "
            "sessions are kept."
        ) in server.log
        assert sessions(server) == []
        again = new_session(server)
        assert (again["id"], again["path"]) == (session["id"], "a.ipynb")
        assert server.execute(again["kernel"]["id"], "print('x' in dir())") == "False\n"
        assert server.terminate() == 0
        assert kernel_processes(home) == []
        server.start()
        again = change(server, new_session(server), "b.ipynb")
        assert again["id"] == session["id"]
        end(home, server, again)


CURSOR = "--ServerApp.session_manager_class=configured.CursorSessions"


def test_a_session_manager_that_needs_the_synchronous_cursor_is_left_as_it_is(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    with server_factory(args=[CURSOR], env=configured()) as server:
        session = use(server)
        server.restart()
        assert "CursorSessions uses the synchronous cursor" in server.log
        assert sessions(server) == []
        kernel_id = session["kernel"]["id"]
        assert [k["id"] for k in server.get("/api/kernels").json()] == [kernel_id]
        assert server.execute(kernel_id, "print(x)") == "2\n"
        again = new_session(server, kernel={"id": kernel_id})
        assert again["id"] != session["id"]
        end(home, server, again)


def test_what_such_a_session_manager_keeps_in_a_file_of_its_own_finds_its_kernels_again(
    home: Home, server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    options = [CURSOR, f"--SessionManager.database_filepath={tmp_path / 'my.db'}"]
    with server_factory(args=options, env=configured()) as server:
        session = use(server)
        server.restart()
        assert_lasted(server, session)
        tables = "SELECT name FROM sqlite_master"
        with contextlib.closing(sqlite3.connect(tmp_path / "my.db")) as file:
            assert file.execute(tables).fetchall() == [("session",)]  # nobody else writes there
        end(home, server, session)
        server.start()
        assert sessions(server) == []


# ---------------------------------------------------------------------- without the extension


def test_without_the_extension_its_database_is_harmless_and_can_be_taken_over_again(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    def start(*, ours: bool) -> None:
        file = state_folder(home) / "sessions.sqlite"
        server.args = [] if ours else [f"--SessionManager.database_filepath={file}"]
        server.env = {} if ours else without_us(home)
        if not ours:
            end_keepers(home)
        server.start()

    with server_factory() as server:
        dormant, asked = (new_session(server, path) for path in ("d.ipynb", "asked.ipynb"))
        for session in (dormant, asked):
            server.delete(f"/api/kernels/{session['kernel']['id']}")
        live = change(server, new_session(server, "live.ipynb"), "b.ipynb")
        assert server.terminate() == 0

        start(ours=False)
        stock = new_session(server, "stock.ipynb")
        url = f"/api/sessions/{stock['id']}"
        assert server.patch(url, {"path": "renamed.ipynb"}).status_code == 200
        assert server.get(f"/api/sessions/{asked['id']}").status_code == 404  # and deletes it
        server.kill()

        start(ours=True)
        assert_lasted(server, live)
        assert new_session(server, "renamed.ipynb")["id"] == stock["id"]
        assert new_session(server, "d.ipynb")["id"] == dormant["id"]
        assert new_session(server, "asked.ipynb")["id"] != asked["id"]
        assert server.terminate() == 0

        start(ours=False)
        assert sessions(server) == []  # and now no session is left in the file
        assert server.terminate() == 0

        start(ours=True)
        assert sessions(server) == []
        assert server.execute(live["kernel"]["id"], "print(x)") == "2\n"
        assert new_session(server, "b.ipynb")["id"] != live["id"]
        assert server.terminate() == 0
        assert_no_error(server)


def test_options_without_a_valid_value_are_told_of_and_cost_nothing_else(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    options = {"orphan_timeout": "-1", "kernels_on_stop": "sometimes", "journal_limit": "much"}
    args = [f"--SessionsApp.{name}={value}" for name, value in options.items()]
    with server_factory(args=args) as server:
        session = use(server)
        server.restart()
        assert_lasted(server, session)
        for name in options:
            said = [line for line in server.log.splitlines() if f"'{name}' trait" in line]
            assert ["its default is used" in line for line in said] == [True, True]  # at each start
