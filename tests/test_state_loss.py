"""State is lost, full, locked or chosen by the user: each test states what holds afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clients import new_session, running_session, sessions
from conftest import require
from disks import mount
from homes import database, kernel_process, locked, state_folder, without_us
from servers import Home, Server, kernel_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


def is_working(server: Server) -> None:
    """Check that a server serves kernels, whatever it has lost."""
    session = new_session(server, "works.ipynb")
    assert server.execute(session["kernel"]["id"], "print(6 * 7)") == "42\n"
    assert server.delete(f"/api/sessions/{session['id']}").status_code == 204


# -------------------------------------------------------------------------- the state


@pytest.mark.parametrize("on_stop", ["keep", "shutdown"])
def test_a_database_that_another_process_has_locked_does_not_keep_the_server_from_stopping(
    home: Home, server_factory: Callable[..., Server], on_stop: str
) -> None:
    with server_factory(args=[f"--SessionsApp.kernels_on_stop={on_stop}"]) as server:
        session = new_session(server)
        server.execute(session["kernel"]["id"], "x = 1")
        with locked(home):
            reply = server.patch(f"/api/sessions/{session['id']}", {"path": "b.ipynb"})
            assert reply.status_code == 503
            assert [s["path"] for s in sessions(server)] == ["a.ipynb"]
            server.terminate(timeout=10)
        assert bool(kernel_processes(home)) == (on_stop == "keep")


def test_a_newer_schema_is_left_alone_and_the_server_works(home: Home, server: Server) -> None:
    session = running_session(server)
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
    mount("-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(state))
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
            return (
                server.patch(url, {"path": "x" * 4_000, "name": str(time.monotonic())}).status_code
                == 503
            )

        wait_until(refused, 10, "a change was refused")
        body = {"path": "b" * 4_000, "type": "notebook", "kernel": {"name": "python3"}}
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
    session = running_session(server)
    server.terminate()
    state = home.data_dir / "jupyter_sessions_ext"
    mount("--bind", str(state), str(state))
    cls = f"jupyter_server.services.kernels.kernelmanager.{manager}"
    read_only = server_factory(args=[f"--ServerApp.kernel_manager_class={cls}"])
    try:
        mount("-o", "remount,bind,ro", str(state))
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
    session = running_session(server)
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
