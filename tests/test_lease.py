"""A workspace has one user at a time, whatever reads its files, and wherever its kernels run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from clients import new_session, running_session, sessions
from commands import another_process, run
from conftest import require
from homes import kernel_process, state_folder
from kept import keeper_folder
from lasting import LastingClient, assert_whole
from servers import Home, Server, keepers, kernel_processes, wait_until

from jupyter_sessions_ext.host import OWNS_LOCKS
from jupyter_sessions_ext.lease import HOLDER, LEASE, Lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

needs_locks = pytest.mark.skipif(not OWNS_LOCKS, reason="the system has no locks of open files")

# -------------------------------------------------------------------------- one lock of two

READS = """
import os, sys
from pathlib import Path
from jupyter_sessions_ext.lease import Lease

folder = Path(sys.argv[1])
lease = Lease.take(folder, COMMAND)
for path in folder.iterdir():
    path.read_bytes()
print("taken", flush=True)
sys.stdin.read()
"""

FORKS = """
import os, sys
from pathlib import Path
from jupyter_sessions_ext.lease import Lease

lease = Lease.take(Path(sys.argv[1]))
child = os.fork()
if child:
    print(child, flush=True)
sys.stdin.read()
"""


@needs_locks
def test_a_lease_stays_when_its_process_reads_its_files(tmp_path: Path) -> None:
    with another_process(READS.replace("COMMAND", '""'), tmp_path) as (_, process):
        assert Lease.take(tmp_path) is None
        holder = Lease.holder(tmp_path)
        assert holder is not None
        assert (holder.pid, holder.is_weakened) == (process.pid, True)
    assert Lease.holder(tmp_path) is None
    lease = Lease.take(tmp_path)
    assert lease is not None
    lease.release()


@needs_locks
def test_kill_9_frees_a_lease_although_a_child_that_was_forked_lives(tmp_path: Path) -> None:
    with another_process(FORKS, tmp_path) as (child, process):
        assert Lease.take(tmp_path) is None
        process.kill()
        process.wait()
        assert psutil.pid_exists(int(child))
        assert Lease.holder(tmp_path) is None
        lease = Lease.take(tmp_path)
        assert lease is not None
        with another_process(READS.replace("COMMAND", '""'), tmp_path) as _:
            holder = Lease.holder(tmp_path)
            assert holder is not None
            assert holder.pid == os.getpid() or holder.pid == 0
        lease.release()


@needs_locks
@pytest.mark.parametrize("what", ["lock", "os.pwrite", "os.open"])
def test_where_the_second_lock_cannot_be_had_the_first_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    opened = os.open

    def refuse(first: object, *arguments: Any) -> int:
        if what == "os.open" and not str(first).endswith(HOLDER):
            return opened(str(first), *arguments)
        raise OSError(errno.ENOSYS, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(f"jupyter_sessions_ext.lease.{what}", refuse)
        lease = Lease.take(tmp_path)
    assert lease is not None
    with another_process(READS.replace("COMMAND", '""'), tmp_path) as (_, _process):
        holder = Lease.holder(tmp_path)
        assert holder is None or holder.pid in (0, os.getpid())
    assert Lease.take(tmp_path) is None
    lease.release()


@needs_locks
def test_two_servers_stay_apart_when_the_first_has_shown_its_state_to_a_user(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    args = [f"--SessionsApp.state_dir={home.root_dir / 'state'}"]
    with server_factory(args=args) as first:
        session = running_session(first)
        kernel_id = session["kernel"]["id"]
        [folder] = (home.root_dir / "state").iterdir()
        for name in (LEASE, HOLDER, "workspace.json"):
            assert first.get(f"/files/state/{folder.name}/{name}").status_code == 200
            assert first.get(f"/api/contents/state/{folder.name}/{name}").status_code == 200
        with LastingClient(first, kernel_id) as client, server_factory(args=args) as second:
            assert "Another server uses workspace" in second.log
            assert sessions(second) == []
            new_session(second, "b.ipynb")
            assert [s["path"] for s in sessions(first)] == ["a.ipynb"]
            assert [s["path"] for s in sessions(second)] == ["b.ipynb"]
            assert_whole(client, client.execute("print(0)"), 1)
            assert client.connections == 1
            assert len(keepers(home)) == 2
            assert "The keeper is gone" not in first.log + second.log


# -------------------------------------------------------------------------- a command at work

STOPS = """
import sys
from jupyter_sessions_ext.cli import main, stop

stop.POLITE_SECONDS = 1.5
sys.exit(main(["stop", "a.ipynb"]))
"""

WITHSTANDS = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("withstands", flush=True)
while True:
    time.sleep(1)
"""


def test_a_server_that_starts_while_kernels_are_being_stopped_has_the_others(
    home: Home, server: Server
) -> None:
    stopped = new_session(server, "a.ipynb")
    other = new_session(server, "b.ipynb")
    with LastingClient(server, stopped["kernel"]["id"]) as client:
        request = client.execute(WITHSTANDS)
        wait_until(lambda: client.text(request) == "withstands\n", 20, "it withstood")
    server.execute(other["kernel"]["id"], "x = 1")
    server.kill()
    command = [sys.executable, "-c", STOPS]
    with subprocess.Popen(command, env=home.environment(), stdout=subprocess.PIPE) as stop:
        assert stop.stdout is not None
        assert b"ending 1 kernel(s)" in stop.stdout.readline()
        folder = state_folder(home)
        wait_until(lambda: Lease.holder(folder), 10, "the command had the lease")
        server.start()
        assert stop.wait(20) == 0
    assert "Waiting for `jupyter sessions stop` (pid " in server.log
    assert [(s["path"], s["kernel"]["id"]) for s in sessions(server)] == [
        ("b.ipynb", other["kernel"]["id"])
    ]
    assert server.execute(other["kernel"]["id"], "print(x)") == "1\n"
    assert len(kernel_processes(home)) == 1


# -------------------------------------------------------------------------- another container

CONTAINER = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:  # ip link set lo up
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def in_container(*arguments: str) -> list[str]:
    """Return the command that runs Python with processes and a network of its own."""
    unshare = ["unshare", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
    return [*unshare, sys.executable, "-c", CONTAINER, *arguments]


@pytest.fixture(scope="module")
def needs_containers() -> None:
    try:
        done = subprocess.run(in_container("-c", ""), capture_output=True, check=False)
    except OSError as error:
        require(False, f"unshare ({error})")
    else:
        require(done.returncode == 0, f"unshare ({done.stderr.decode().strip()})")


@contextmanager
def contained_server(home: Home, port: int) -> Iterator[Callable[[], str]]:
    """Run a server in another container that has the same home; yield what returns its log."""
    log = home.path / "contained.log"
    command = in_container(
        *("-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"),
        *(f"--ServerApp.port={port}", f"--ServerApp.root_dir={home.root_dir}"),
        "--IdentityProvider.token=test-token",
    )
    with (
        log.open("wb") as out,
        subprocess.Popen(command, env=home.environment(), stdout=out, stderr=out) as process,
    ):
        try:
            wait_until(lambda: "is running at" in log.read_text(), 30, "it ran")
            yield log.read_text
        finally:
            process.kill()  # and with it all that it has started


@pytest.mark.usefixtures("needs_containers")
def test_kernels_of_another_container_are_left_alone(home: Home, server: Server) -> None:
    session = running_session(server)
    kernel_id = session["kernel"]["id"]
    server.execute(kernel_id, "x = 1")
    connection_file = home.runtime_dir / f"kernel-{kernel_id}.json"
    [keeper] = keepers(home)
    server.kill()
    with contained_server(home, server.port) as log:
        assert "Another container uses workspace" in log()
        assert "Adopted" not in log()
        assert connection_file.exists()
        assert kernel_process(home, kernel_id).is_running()
        wait_until(lambda: len([*state_dir(home).iterdir()]) == 2, 10, "it had its own")
        assert keeper.is_running()
        for arguments, told in [
            (("stop", "--all"), "kernel(s) are another container's; end them there"),
            (("check",), "its keeper runs in another container"),
        ]:
            done = subprocess.run(
                in_container("-m", "jupyter_sessions_ext.cli", *arguments),
                env={**home.environment(), "COLUMNS": "200"},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert told in done.stdout + done.stderr
    server.start()
    assert [(s["path"], s["kernel"]["id"]) for s in sessions(server)] == [("a.ipynb", kernel_id)]
    assert server.execute(kernel_id, "print(x)") == "1\n"
    assert keepers(home) == [keeper]


def state_dir(home: Home) -> Path:
    return home.data_dir / "jupyter_sessions_ext"


# -------------------------------------------------------------------------- a keeper that gives up

SLOW = """
import os, time

def _jupyter_server_extension_points():
    return [{"module": __name__}]

def _load_jupyter_server_extension(serverapp):
    with open(os.environ["SLOW_SIGN"], "w"):
        pass
    until = time.monotonic() + 20
    while not os.path.exists(os.environ["SLOW_GO_ON"]) and time.monotonic() < until:
        time.sleep(0.01)
"""


def test_kernels_that_a_starting_server_has_adopted_are_not_ended(
    home: Home, server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "slow_extension.py").write_text(SLOW)
    sign, go_on = tmp_path / "sign", tmp_path / "go-on"
    go_on.touch()
    with server_factory(
        args=[
            "--ServerApp.jpserver_extensions={'slow_extension': True}",
            "--SessionsApp.orphan_timeout=3",
        ],
        env={"PYTHONPATH": str(tmp_path), "SLOW_SIGN": str(sign), "SLOW_GO_ON": str(go_on)},
    ) as server:
        session = running_session(server)
        kernel_id = session["kernel"]["id"]
        server.execute(kernel_id, "x = 1")
        sign.unlink()
        go_on.unlink()
        server.kill()
        starting = threading.Thread(target=server.start)
        starting.start()
        try:
            wait_until(sign.exists, 20, "the kernel was adopted")
            # The timeout runs out: what is watched is that nothing happens.
            with pytest.raises(psutil.TimeoutExpired):
                kernel_process(home, kernel_id).wait(5)
        finally:
            go_on.touch()
            starting.join()
        assert [s["kernel"]["id"] for s in sessions(server)] == [kernel_id]
        assert server.execute(kernel_id, "print(x)") == "1\n"
        assert "restarting kernel" not in server.log
        log = (keeper_folder(home) / "keeper.log").read_text()
        assert "the kernels are ended" not in log


# -------------------------------------------------------------------------- odd files

ODD = [b"[]", b"null", b'{"a": 1e9999}', b"[" * 100_000, b"\xff\xfe", b""]
FILES = ["keeper/ended.json", "workspace.json", HOLDER, "keeper/keeper.lock"]


def test_a_server_starts_beside_small_files_that_say_nothing(home: Home, server: Server) -> None:
    session = running_session(server)
    for content in ODD:
        server.kill()
        for name in FILES:
            (state_folder(home) / name).write_bytes(content)
        server.start()
        assert [s["id"] for s in sessions(server)] == [session["id"]]
    assert server.execute(session["kernel"]["id"], "print(1)") == "1\n"
    done = run(home, "check", "--json")
    assert [f["text"] for f in done.json if f["state"] == "problem"] == []
