"""Processes: a kernel is signalled only if it is provably the one that was recorded."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from jupyter_sessions_ext import host
from jupyter_sessions_ext.host import (
    KERNEL_MARK,
    environment,
    find_marked,
    find_processes,
    identify,
    is_on_network,
    is_running,
)
from jupyter_sessions_ext.kernels.process import AdoptedProcess, signal_group
from jupyter_sessions_ext.models import ProcessIdentity

pytestmark = pytest.mark.skipif(not host.POSIX, reason="no kernel outlives the server there")

WAIT = "import sys; print('up', flush=True); sys.stdin.read()"
"""It tells when it is up, and ends with its stdin, so that none is left whatever happens."""


@contextlib.contextmanager
def waiting(
    *arguments: str, env: Mapping[str, str] | None = None, new_session: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that waits, with more arguments on its command line."""
    with subprocess.Popen(
        [sys.executable, "-c", WAIT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **(env or {})},
        start_new_session=new_session,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with waiting() as process:
        yield process


def identity_of(pid: int) -> ProcessIdentity:
    identity = identify(pid)
    assert identity is not None
    return identity


# -------------------------------------------------------------------------- identity


def test_a_running_process_has_an_identity_that_runs(process: subprocess.Popen[bytes]) -> None:
    identity = identity_of(process.pid)
    assert identity.pid == process.pid
    assert is_running(identity)
    assert identity_of(process.pid) == identity


def test_an_ended_process_does_not_run(process: subprocess.Popen[bytes]) -> None:
    identity = identity_of(process.pid)
    process.kill()
    process.wait()
    assert not is_running(identity)
    assert identify(process.pid) is None


def test_a_zombie_does_not_run(process: subprocess.Popen[bytes]) -> None:
    identity = identity_of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert not is_running(identity)
    assert identify(process.pid) is None


def test_a_process_that_is_stopped_runs(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert is_running(identity_of(process.pid))


ANOTHERS: dict[str, dict[str, Any]] = {
    "a pid used again": {"started": 1.0},
    "before the last boot": {"boot": "another"},
    "in another container": {"namespace": "another"},
}
"""What tells the recorded process from the one that has its pid now."""


@pytest.mark.parametrize("recorded", ANOTHERS.values(), ids=list(ANOTHERS))
def test_another_process_of_the_same_pid_does_not_run(
    process: subprocess.Popen[bytes], recorded: dict[str, Any]
) -> None:
    assert not is_running(replace(identity_of(process.pid), **recorded))


def test_two_processes_that_start_together_differ_by_their_pid() -> None:
    with waiting() as first, waiting() as second:
        assert identity_of(first.pid).pid != identity_of(second.pid).pid


@pytest.mark.skipif(sys.platform != "linux", reason="the names of processes are in /proc")
@pytest.mark.parametrize("name", ["a) Z 1 (b", "((", ") Z", "x y\nz"])
def test_no_name_that_a_process_takes_hides_it(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.symlink_to(sys.executable)
    with subprocess.Popen(
        [program, "-c", WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        plain = psutil.Process(process.pid).create_time()
        ticks = os.sysconf("SC_CLK_TCK")
        assert identity_of(process.pid).started / ticks == pytest.approx(
            plain - psutil.boot_time(), abs=2
        )
        process.kill()


def test_systems_without_proc_give_the_same_answers(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_PROC", False)
    identity = identity_of(process.pid)
    assert identity.started == psutil.Process(process.pid).create_time()
    assert is_running(identity)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(identity)
    process.wait()
    assert identify(process.pid) is None


def test_the_environment_of_a_process_is_read(process: subprocess.Popen[bytes]) -> None:
    with waiting(env={"MARK": "one two\nthree"}) as marked:
        assert environment(marked.pid)["MARK"] == "one two\nthree"
    assert "MARK" not in environment(process.pid)


def test_the_environment_of_an_ended_process_is_empty(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert environment(process.pid) == {}


# -------------------------------------------------------------------------- an adopted process

START_AND_LEAVE = """
import subprocess, sys

child = subprocess.Popen(
    [sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, start_new_session=True
)
child.stdout.readline()
print(child.pid, flush=True)
"""


@pytest.fixture
def stranger() -> Iterator[ProcessIdentity]:
    """Run a process that is not our child, as a kernel that an earlier server started."""
    read, write = os.pipe()
    try:
        starter = subprocess.run(
            [sys.executable, "-c", START_AND_LEAVE, WAIT],
            stdin=read,
            stdout=subprocess.PIPE,
            check=True,
        )
        identity = identity_of(int(starter.stdout))
        yield identity
        if is_running(identity):
            os.kill(identity.pid, signal.SIGKILL)
    finally:
        os.close(read)
        os.close(write)


def test_an_adopted_process_runs_until_it_ends(stranger: ProcessIdentity) -> None:
    adopted = AdoptedProcess(stranger)
    assert adopted.pid == stranger.pid
    assert adopted.poll() is None
    assert adopted.returncode is None
    os.kill(stranger.pid, signal.SIGKILL)
    assert adopted.wait(10) == -1
    assert adopted.poll() == -1
    assert adopted.returncode == -1
    assert not is_running(stranger)


def test_waiting_for_an_adopted_process_times_out(stranger: ProcessIdentity) -> None:
    with pytest.raises(subprocess.TimeoutExpired) as timeout:
        AdoptedProcess(stranger).wait(0.05)
    assert timeout.value.timeout == 0.05
    assert is_running(stranger)


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_an_adopted_process_is_ended(stranger: ProcessIdentity, end: str) -> None:
    adopted = AdoptedProcess(stranger)
    getattr(adopted, end)()
    assert adopted.wait(10) == -1


def test_an_ended_adopted_process_is_signalled_in_vain(stranger: ProcessIdentity) -> None:
    adopted = AdoptedProcess(stranger)
    adopted.kill()
    adopted.wait(10)
    adopted.send_signal(signal.SIGTERM)
    adopted.terminate()
    adopted.kill()


@pytest.mark.parametrize("recorded", ANOTHERS.values(), ids=list(ANOTHERS))
def test_a_bystander_is_never_signalled(
    process: subprocess.Popen[bytes], recorded: dict[str, Any]
) -> None:
    identity = replace(identity_of(process.pid), **recorded)
    adopted = AdoptedProcess(identity)
    assert adopted.poll() == -1
    adopted.send_signal(signal.SIGKILL)
    adopted.terminate()
    adopted.kill()
    assert not signal_group(identity, signal.SIGKILL)
    assert ask_to_end(process) == 0


def ask_to_end(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a process that waits: a signal that it was sent would show."""
    assert process.stdin is not None
    process.stdin.close()
    return process.wait(10)


START_AND_WAIT = """
import subprocess, sys

child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
child.wait()
"""


def test_what_a_kernel_started_is_signalled_with_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as kernel:
        assert kernel.stdout is not None
        lines = {kernel.stdout.readline(), kernel.stdout.readline()} - {b"up\n"}
        started = AdoptedProcess(identity_of(int(lines.pop())))
        assert started.poll() is None
        assert signal_group(identity_of(kernel.pid), signal.SIGKILL)
        assert kernel.wait(10) == -signal.SIGKILL
        assert started.wait(10) == -1


def test_a_process_that_leads_no_group_is_signalled_alone() -> None:
    """Its group is somebody else's: here, that of the tests themselves."""
    with waiting(new_session=False) as child:
        assert os.getpgid(child.pid) == os.getpgrp()
        assert signal_group(identity_of(child.pid), signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL


def test_a_group_whose_leader_has_ended_is_not_signalled(stranger: ProcessIdentity) -> None:
    adopted = AdoptedProcess(stranger)
    adopted.kill()
    adopted.wait(10)
    assert not signal_group(stranger, signal.SIGKILL)


# -------------------------------------------------------------------------- looking for kernels


@pytest.fixture
def mark() -> str:
    return f"workspace-{uuid4().hex}"


@pytest.fixture
def connection_file(tmp_path: Path) -> str:
    path = tmp_path / "kernel-k.json"
    path.write_text("{}")
    return str(path)


def test_a_kernel_is_found_by_its_connection_file_and_its_mark(
    connection_file: str, mark: str
) -> None:
    with waiting("-f", connection_file, env={KERNEL_MARK: f"{mark}:k"}) as kernel:
        found = find_processes({connection_file: "k", f"{connection_file}.other": "l"})
        assert found == {"k": kernel.pid}


def test_a_console_that_is_connected_to_a_kernel_is_not_taken_for_it(connection_file: str) -> None:
    with waiting("console", "--existing", connection_file):
        assert find_processes({connection_file: "k"}) == {}


def test_what_a_kernel_started_is_not_taken_for_it(connection_file: str, mark: str) -> None:
    with waiting("1234", env={KERNEL_MARK: f"{mark}:k"}):
        assert find_processes({connection_file: "k"}) == {}


@pytest.mark.parametrize("other", ["{mark}:unknown", "{mark}", "k", ""])
def test_a_kernel_of_another_mark_is_not_found(connection_file: str, mark: str, other: str) -> None:
    with waiting("-f", connection_file, env={KERNEL_MARK: other.format(mark=mark)}):
        assert find_processes({connection_file: "k"}) == {}


def test_what_a_kernel_forks_is_not_taken_for_it(connection_file: str, mark: str) -> None:
    env = {KERNEL_MARK: f"{mark}:k"}
    with (
        waiting("-f", connection_file, env=env) as kernel,
        waiting("-f", connection_file, env=env, new_session=False),
        waiting("-f", connection_file, env=env),  # one that made a session of its own, later
    ):
        assert find_processes({connection_file: "k"}) == {"k": kernel.pid}


def test_a_kernel_that_ended_is_not_found(connection_file: str, mark: str) -> None:
    with waiting("-f", connection_file, env={KERNEL_MARK: f"{mark}:k"}) as kernel:
        kernel.kill()
        os.waitid(os.P_PID, kernel.pid, os.WEXITED | os.WNOWAIT)
        assert find_processes({connection_file: "k"}) == {}


def test_a_marked_kernel_is_found_without_its_record(connection_file: str, mark: str) -> None:
    with waiting("-f", connection_file, env={KERNEL_MARK: f"{mark}:k"}) as kernel:
        assert list(find_marked(mark)) == [("k", kernel.pid, connection_file)]
        assert list(find_marked("another")) == []


@pytest.mark.parametrize("kernel_id", ["6c9d1f0ab3e8", "k"])
def test_what_a_kernel_starts_inherits_its_mark_and_is_not_taken_for_it(
    tmp_path: Path, mark: str, kernel_id: str
) -> None:
    other = tmp_path / "task" / "settings.json"
    other.parent.mkdir()
    other.write_text("{}")
    missing = str(tmp_path / f"kernel-{kernel_id}.json")
    with waiting(str(other), missing, kernel_id, env={KERNEL_MARK: f"{mark}:{kernel_id}"}):
        assert list(find_marked(mark)) == []


# -------------------------------------------------------------------------- file systems


def test_a_folder_of_this_machine_is_not_on_a_network(tmp_path: Path) -> None:
    assert not is_on_network(tmp_path)


Partition = namedtuple("Partition", ["mountpoint", "fstype"])  # noqa: PYI024


@pytest.mark.parametrize(
    ("fstype", "network"),
    [
        ("nfs", True),
        ("nfs4", True),
        ("cifs", True),
        ("smb3", True),
        ("fuse.sshfs", True),
        ("9p", True),
        ("ext4", False),
        ("overlay", False),
        ("tmpfs", False),
        ("fuseblk", False),
        ("zfs", False),
    ],
)
def test_the_file_system_that_holds_the_folder_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fstype: str, network: bool
) -> None:
    """No network file system can be had here: only the system's table of them is made up."""
    table = [
        Partition("/", "ext4"),
        Partition(str(tmp_path / "home"), fstype),
        Partition(str(tmp_path / "home" / "local"), "ext4"),
        Partition(str(tmp_path / "home-of-others"), "ext4"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: table)  # noqa: A006
    for path in ("home", "home/ada/state"):
        assert is_on_network(tmp_path / path) == network
    for path in ("", "home/local/state", "home-of-others", "homes"):
        assert not is_on_network(tmp_path / path)
