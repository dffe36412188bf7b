"""What is left when something is lost: each test states the invariant that holds afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from conftest import require
from servers import Home, Server, kernel_processes, wait_until
from test_survival import kernel_process, new_session, sessions, until_idle

from jupyter_sessions_ext.host import identify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = Path(__file__).parent


def state_folder(home: Home) -> Path:
    [folder] = (home.data_dir / "jupyter_sessions_ext").iterdir()
    return folder


@contextlib.contextmanager
def database(home: Home) -> Iterator[sqlite3.Connection]:
    """Open the stored state while no server runs, to change what it says."""
    connection = sqlite3.connect(state_folder(home) / "sessions.sqlite")
    with contextlib.closing(connection), connection:
        yield connection


def mounted(*options: str) -> None:
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"mount ({done.stderr.strip()})")


def without_us(home: Home) -> dict[str, str]:
    """Return the environment of a server that has us disabled."""
    folder = home.path / "config-without-us"
    folder.mkdir(exist_ok=True)
    off = {"ServerApp": {"jpserver_extensions": {"jupyter_sessions_ext": False}}}
    (folder / "jupyter_server_config.json").write_text(json.dumps(off))
    return {"JUPYTER_CONFIG_DIR": str(folder)}


def is_working(server: Server) -> None:
    """Check that a server serves kernels, whatever it has lost."""
    session = new_session(server, "works.ipynb")
    assert server.execute(session["kernel"]["id"], "print(6 * 7)") == "42\n"
    assert server.delete(f"/api/sessions/{session['id']}").status_code == 204


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
    assert len(kernel_processes(home)) == 2
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
    assert len(kernel_processes(home)) == 2
    with database(home) as connection:
        rows = connection.execute("SELECT machine FROM kernel ORDER BY rowid").fetchall()
        assert ("elsewhere",) in rows
        states = connection.execute("SELECT state FROM session_detail").fetchall()
        assert states == [("live",), ("live",)]


# -------------------------------------------------------------------------- the state


@pytest.mark.parametrize("on_stop", ["keep", "shutdown"])
def test_a_database_that_another_process_has_locked_does_not_keep_the_server_from_stopping(
    home: Home, server_factory: Callable[..., Server], on_stop: str
) -> None:
    with server_factory(args=[f"--SessionsApp.kernels_on_stop={on_stop}"]) as server:
        session = new_session(server)
        server.execute(session["kernel"]["id"], "x = 1")
        with contextlib.closing(
            sqlite3.connect(state_folder(home) / "sessions.sqlite", isolation_level=None)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            reply = server.patch(f"/api/sessions/{session['id']}", {"path": "b.ipynb"})
            assert reply.status_code == 503
            assert [s["path"] for s in sessions(server)] == ["a.ipynb"]
            server.terminate(timeout=10)
        assert bool(kernel_processes(home)) == (on_stop == "keep")


def test_a_newer_schema_is_left_alone_and_the_server_works(home: Home, server: Server) -> None:
    session = new_session(server)
    server.terminate()
    with database(home) as connection:
        connection.execute("INSERT INTO schema_version VALUES (999, 'later', 'later')")
    file = state_folder(home) / "sessions.sqlite"
    before = file.read_bytes()
    server.start()
    assert "upgrade jupyter_sessions_ext" in server.log
    assert sessions(server) == []
    is_working(server)
    server.terminate()
    assert file.read_bytes() == before
    assert kernel_process(home, session["kernel"]["id"]).is_running()


@pytest.mark.parametrize("loss", ["deleted", "garbage", "truncated"])
def test_a_lost_database_is_rebuilt_from_the_kernels_that_run(
    home: Home, server: Server, loss: str
) -> None:
    session = new_session(server)
    server.execute(session["kernel"]["id"], "x = 9")
    server.kill()
    file = state_folder(home) / "sessions.sqlite"
    for path in state_folder(home).glob("sessions.sqlite-*"):
        path.unlink()
    if loss == "deleted":
        shutil.rmtree(home.data_dir / "jupyter_sessions_ext")
    elif loss == "garbage":
        file.write_bytes(b"\xff" * 100_000)
    else:
        file.write_bytes(file.read_bytes()[:5000])
    server.start()
    assert [(s["id"], s["path"]) for s in sessions(server)] == [(session["id"], "a.ipynb")]
    assert server.execute(session["kernel"]["id"], "print(x)") == "9\n"
    if loss != "deleted":
        assert "was moved to" in server.log
        [aside] = state_folder(home).glob("sessions.sqlite.corrupt-*")
        assert aside.stat().st_mode & 0o077 == 0
    server.restart()
    assert [s["id"] for s in sessions(server)] == [session["id"]]


def test_state_deleted_while_the_server_runs_is_answered_with_503(
    home: Home, server: Server
) -> None:
    session = new_session(server)
    server.execute(session["kernel"]["id"], "x = 1")
    shutil.rmtree(home.data_dir / "jupyter_sessions_ext")
    for _ in range(3):
        body = {"path": "b.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
        reply = server.post("/api/sessions", body)
        assert (reply.status_code, "deleted" in reply.json()["message"]) == (503, True)
        url = f"/api/sessions/{session['id']}"
        assert server.patch(url, {"path": "c.ipynb"}).status_code == 503
        assert server.patch(url, {"kernel": {"name": "python3"}}).status_code == 503
        assert server.delete(url).status_code == 503
        assert server.post("/api/kernels", {"name": "python3"}).status_code == 503
    assert [(s["id"], s["path"]) for s in sessions(server)] == [(session["id"], "a.ipynb")]
    assert server.execute(session["kernel"]["id"], "print(x)") == "1\n"
    assert len(kernel_processes(home)) == 1
    assert server.log.count("refused with status 503") == 1
    server.terminate()
    server.start()
    assert [s["id"] for s in sessions(server)] == [session["id"]]


def test_a_full_disk_refuses_changes_and_loses_nothing(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    state = home.data_dir / "jupyter_sessions_ext"
    state.mkdir(mode=0o700)
    mounted("-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(state))
    server = server_factory()
    try:
        server.start()
        session = new_session(server)
        server.execute(session["kernel"]["id"], "x = 1")
        ballast = state / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        url = f"/api/sessions/{session['id']}"

        def refused() -> bool:
            return server.patch(url, {"path": "x" * 20_000}).status_code == 503

        wait_until(refused, 10, "a change was refused")
        body = {"path": "b" * 20_000, "type": "notebook", "kernel": {"name": "python3"}}
        assert server.post("/api/sessions", body).status_code == 503
        assert len(kernel_processes(home)) == 1
        assert server.execute(session["kernel"]["id"], "print(x)") == "1\n"
        server.restart()  # it starts on the full disk, too
        assert [s["id"] for s in sessions(server)] == [session["id"]]
        assert server.execute(session["kernel"]["id"], "print(x)") == "1\n"
        assert server.post("/api/sessions", body).status_code == 503
        ballast.unlink()
        assert server.patch(url, {"path": "b.ipynb"}).status_code == 200
        assert new_session(server, "c.ipynb")
        server.terminate()
    finally:
        server.kill()
        subprocess.run(["umount", "-l", str(state)], check=True)


@pytest.mark.parametrize("manager", ["AsyncMappingKernelManager", "MappingKernelManager"])
def test_over_a_read_only_state_folder_the_server_serves_and_refuses_what_it_cannot_keep(
    home: Home, server: Server, server_factory: Callable[..., Server], manager: str
) -> None:
    session = new_session(server)
    server.terminate()
    state = home.data_dir / "jupyter_sessions_ext"
    mounted("--bind", str(state), str(state))
    cls = f"jupyter_server.services.kernels.kernelmanager.{manager}"
    read_only = server_factory(args=[f"--ServerApp.kernel_manager_class={cls}"])
    try:
        mounted("-o", "remount,bind,ro", str(state))
        read_only.start()
        assert read_only.get("/api/contents").status_code == 200
        for _ in range(3):
            body = {"path": "b.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
            refused = read_only.post("/api/sessions", body)
            assert refused.status_code == 503
            assert "database_filepath=:memory:" in refused.json()["message"]
            assert sessions(read_only) == []
        assert read_only.log.count("changes are refused with status 503") == 1
        assert len(kernel_processes(home)) == 1
        read_only.terminate()
        assert kernel_process(home, session["kernel"]["id"]).is_running()
    finally:
        server.kill()
        subprocess.run(["umount", "-l", str(state)], check=True)
    server.start()
    assert [s["id"] for s in sessions(server)] == [session["id"]]


@pytest.mark.parametrize("fault", ["writable", "foreign"])
def test_state_that_others_control_is_refused_with_the_reason(
    home: Home, server: Server, fault: str
) -> None:
    session = new_session(server)
    server.terminate()
    if fault == "writable":
        state_folder(home).chmod(0o770)
        reason = "others may write to it"
    else:
        require(os.geteuid() == 0, "the right to give files away")
        os.chown(state_folder(home), 12345, 12345)
        reason = "it belongs to user 12345"
    server.start()
    assert reason in server.log
    assert sessions(server) == []
    is_working(server)
    server.terminate()
    assert kernel_process(home, session["kernel"]["id"]).is_running()


def test_without_fcntl_sessions_are_kept_and_kernels_are_as_in_stock(
    home: Home, server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "fcntl.py").write_text("raise ImportError('no fcntl on this platform')")
    with server_factory(env={"PYTHONPATH": str(tmp_path)}) as server:
        session = new_session(server)
        assert server.log.count("Kernels cannot outlive the server on this platform") == 1
        server.kill()
        wait_until(lambda: kernel_processes(home) == [], 20, "the kernel ended with the server")
        server.start()
        assert sessions(server) == []
        assert new_session(server)["id"] == session["id"]


def test_ten_thousand_sessions_without_kernels_do_not_hold_up_the_start(
    home: Home, server: Server
) -> None:
    server.terminate()
    with database(home) as connection:
        rows = [(f"id-{n}", f"{n}.ipynb", "n", "notebook", f"k-{n}") for n in range(10_000)]
        connection.executemany("INSERT INTO session VALUES (?,?,?,?,?)", rows)
    began = time.monotonic()
    server.start()
    assert sessions(server) == []
    # Stock's first list alone blocks for 11.5 s here.
    assert time.monotonic() - began < 10
    with database(home) as connection:
        [[times]] = connection.execute("SELECT count(DISTINCT detail) FROM event")
        [[asleep]] = connection.execute("SELECT count(*) FROM session_detail WHERE state='dormant'")
    assert (times, asleep) == (1, 10_000)
    assert new_session(server, "5000.ipynb")["id"] == "id-5000"


# -------------------------------------------------------------------------- what the user chose


def test_an_explicit_memory_database_keeps_nothing(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    with server_factory(args=["--SessionManager.database_filepath=:memory:"]) as server:
        new_session(server)
        server.kill()
        wait_until(lambda: kernel_processes(home) == [], 20, "the kernel ended with the server")
        server.start()
        assert sessions(server) == []
        assert not (home.data_dir / "jupyter_sessions_ext").exists()


def test_an_explicit_database_of_stock_is_backed_up_and_used(
    home: Home, server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    file = tmp_path / "my.db"
    args = [f"--SessionManager.database_filepath={file}"]
    with server_factory(args=args, env=without_us(home)) as server:
        session = new_session(server)
        server.kill()
        wait_until(lambda: kernel_processes(home) == [], 20, "the kernel ended with the server")
        server.env = {}
        server.start()
        assert Path(f"{file}.backup-v0").stat().st_mode & 0o777 == 0o600
        assert file.stat().st_mode & 0o777 == 0o600
        again = new_session(server)
        assert again["id"] == session["id"]
        server.execute(again["kernel"]["id"], "x = 4")
        server.restart()
        assert server.execute(again["kernel"]["id"], "print(x)") == "4\n"
        server.delete(f"/api/sessions/{again['id']}")
        server.terminate()
        server.env = without_us(home)
        server.start()  # without the extension, stock goes on with the same file
        assert new_session(server, "z.ipynb")
        assert len(sessions(server)) == 1


def test_a_database_path_that_is_none_stops_the_start_as_stock_does(
    home: Home, server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    file = tmp_path / "no.db"
    file.write_bytes(b"my thesis")
    server = server_factory(args=[f"--SessionManager.database_filepath={file}"])
    with pytest.raises(AssertionError, match="is not an SQLite database file"):
        server.start()
    assert file.read_bytes() == b"my thesis"


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


# -------------------------------------------------------------------------- the command line


def run_cli(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jupyter_sessions_ext.cli", *arguments],
        env=home.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_stop_ends_kept_kernels_and_only_when_no_server_has_them(
    home: Home, server: Server
) -> None:
    first, second = new_session(server, "a.ipynb"), new_session(server, "b.ipynb")
    sleeper = "import subprocess; subprocess.Popen(['sleep', '1000'])"
    server.execute(first["kernel"]["id"], sleeper)
    listed = run_cli(home, "list")
    assert listed.returncode == 0
    assert "in use by a server" in listed.stdout
    assert listed.stdout.count(" live ") == 2
    refused = run_cli(home, "stop", "--all")
    assert refused.returncode == 1
    assert "belong to a running server" in refused.stderr
    assert len(kernel_processes(home)) == 2

    files = list(home.runtime_dir.glob("kernel-*.json"))
    keys = [json.loads(file.read_text())["key"].encode() for file in files]
    server.terminate()
    assert run_cli(home, "stop").returncode == 2
    one = run_cli(home, "stop", second["id"])
    assert (one.returncode, one.stdout.splitlines()[-1]) == (0, "Ended 1 kernel(s).")
    assert len(kernel_processes(home)) == 1
    every = run_cli(home, "stop", "--all")
    assert (every.returncode, every.stdout.splitlines()[-1]) == (0, "Ended 1 kernel(s).")
    assert kernel_processes(home) == []
    assert not list(home.runtime_dir.glob("kernel-*.json"))
    assert not list(state_folder(home).glob("logs/*"))
    left = [path for path in home.path.rglob("*") if path.is_file()]
    assert not [path for path in left for key in keys if key in path.read_bytes()]
    assert "dormant" in run_cli(home, "list").stdout
    unknown = run_cli(home, "stop", "no-such-id", first["id"])
    assert unknown.returncode == 1
    assert "no-such-id is no kept session or kernel" in unknown.stderr
    assert f"{first['id']} has no running kernel" in unknown.stderr
    assert run_cli(home, "--state-dir", str(home.path / "missing"), "list").returncode == 2

    server.start()
    assert sessions(server) == []
    assert new_session(server, "a.ipynb")["id"] == first["id"]


def test_stop_ends_a_kernel_that_ignores_everything_but_sigkill(home: Home, server: Server) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    server.execute(kernel_id, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    process = kernel_process(home, kernel_id)
    server.kill()
    os.kill(process.pid, signal.SIGSTOP)
    assert run_cli(home, "stop", "--all").returncode == 0
    assert kernel_processes(home) == []
    assert identify(process.pid) is None


def test_stop_ends_kernels_whose_records_cannot_be_read(home: Home, server: Server) -> None:
    new_session(server)
    server.kill()
    (state_folder(home) / "sessions.sqlite").write_bytes(b"garbage" * 10_000)
    listed = run_cli(home, "list")
    assert (listed.returncode, "(no session)" in listed.stdout) == (1, True)
    stopped = run_cli(home, "stop", "--all")
    assert (stopped.returncode, "cannot be used" in stopped.stderr) == (1, True)
    assert "Ended 1 kernel(s)." in stopped.stdout
    assert kernel_processes(home) == []


def test_the_command_that_the_log_names_ends_the_kernels(
    home: Home, server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    state = tmp_path / "my state"
    with server_factory(args=[f"--SessionsApp.state_dir={state}"]) as server:
        new_session(server)
        server.terminate()
        command = shlex.split(server.log.rpartition("To end all that are kept: ")[2].strip())
        assert run_cli(home, *command[2:]).stdout.splitlines()[-1] == "Ended 1 kernel(s)."
        assert kernel_processes(home) == []


def test_no_key_and_no_environment_value_is_logged_or_answered(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    with server_factory(args=["--debug"], env={"MY_SECRET": "hunter2-in-the-env"}) as server:
        session = new_session(server)
        connection = home.runtime_dir / f"kernel-{session['kernel']['id']}.json"
        key = json.loads(connection.read_text())["key"]
        server.restart()
        answers = [server.get("/api/sessions").text, server.get("/api/kernels").text]
        server.terminate()
        said: list[Any] = [server.log, *answers, run_cli(home, "list").stdout]
        for text in said:
            assert key not in text
            assert "hunter2" not in text
    assert b"hunter2" not in (state_folder(home) / "sessions.sqlite").read_bytes()
