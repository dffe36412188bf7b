"""The command line lists and ends what is kept, and nothing says a secret."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients import new_session, sessions
from homes import kernel_process, state_folder
from interpreters import run_python
from servers import Home, Server, kernel_processes

from jupyter_sessions_ext.host import identify

if TYPE_CHECKING:
    from collections.abc import Callable


def run_cli(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ("-m", "jupyter_sessions_ext.cli", *arguments)
    return run_python(*command, env=home.environment(), timeout=60)


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
    assert "no-such-id is no session or kernel that is known" in unknown.stderr
    assert f"{first['id']} (a.ipynb) has no running kernel" in unknown.stderr
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
    assert (listed.returncode, "a.ipynb" in listed.stdout) == (1, True), "its kernel knows it"
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
