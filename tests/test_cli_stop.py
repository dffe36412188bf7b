"""``stop`` ends what it is asked to end, and ``revive`` brings it back."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clients import new_session, sessions
from commands import keep, on_terminal, run
from homes import kernel_process, state_folder
from records import SESSION
from servers import Home, Server, kernel_processes

from jupyter_sessions_ext.host import identify
from jupyter_sessions_ext.models import Change

if TYPE_CHECKING:
    from collections.abc import Callable


def test_stop_ends_kept_kernels_and_only_when_no_server_has_them(
    home: Home, server: Server
) -> None:
    first, second = new_session(server, "a.ipynb"), new_session(server, "b.ipynb")
    sleeper = "import subprocess; subprocess.Popen(['sleep', '1000'])"
    server.execute(first["kernel"]["id"], sleeper)
    listed = run(home, "list")
    assert listed.code == 0
    assert "in use by a server" in listed.out
    assert listed.out.count(" live ") == 2
    refused = run(home, "stop", "--all")
    assert refused.code == 1
    assert "belong to a running server" in refused.err
    assert len(kernel_processes(home)) == 2

    files = list(home.runtime_dir.glob("kernel-*.json"))
    keys = [json.loads(file.read_text())["key"].encode() for file in files]
    server.terminate()
    assert run(home, "stop").code == 2
    one = run(home, "stop", second["id"])
    assert (one.code, one.out.splitlines()[-1]) == (0, "Ended 1 kernel(s).")
    assert len(kernel_processes(home)) == 1
    every = run(home, "stop", "--all")
    assert (every.code, every.out.splitlines()[-1]) == (0, "Ended 1 kernel(s).")
    assert kernel_processes(home) == []
    assert not list(home.runtime_dir.glob("kernel-*.json"))
    assert not list(state_folder(home).glob("logs/*"))
    left = [path for path in home.path.rglob("*") if path.is_file()]
    assert not [path for path in left for key in keys if key in path.read_bytes()]
    assert "dormant" in run(home, "list").out
    unknown = run(home, "stop", "no-such-id", first["id"])
    assert unknown.code == 1
    assert "no-such-id is no session or kernel that is known" in unknown.err
    assert f"{first['id']} (a.ipynb) has no running kernel" in unknown.err
    assert run(home, "--state-dir", str(home.path / "missing"), "list").code == 2

    server.start()
    assert sessions(server) == []
    assert new_session(server, "a.ipynb")["id"] == first["id"]


def test_stop_ends_a_kernel_that_ignores_everything_but_sigkill(home: Home, server: Server) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    server.execute(kernel_id, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    process = kernel_process(home, kernel_id)
    server.kill()
    os.kill(process.pid, signal.SIGSTOP)
    said = on_terminal(home, "stop", "--all")
    assert f"ending kernels of {home.root_dir}" in said, "it takes seconds: its progress is shown"
    assert said.splitlines()[-1].endswith("Ended 1 kernel(s).")
    assert kernel_processes(home) == []
    assert identify(process.pid) is None


def test_stop_ends_kernels_whose_records_cannot_be_read(home: Home, server: Server) -> None:
    new_session(server)
    server.kill()
    (state_folder(home) / "sessions.sqlite").write_bytes(b"garbage" * 10_000)
    listed = run(home, "list")
    assert (listed.code, "a.ipynb" in listed.out) == (1, True), "its kernel knows it"
    stopped = run(home, "stop", "--all")
    assert (stopped.code, "cannot be used" in stopped.err) == (1, True)
    assert "Ended 1 kernel(s)." in stopped.out
    assert kernel_processes(home) == []


def test_the_command_that_the_log_names_ends_the_kernels(
    home: Home, server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    state = tmp_path / "my state"
    with server_factory(args=[f"--SessionsApp.state_dir={state}"]) as server:
        new_session(server)
        server.terminate()
        command = shlex.split(server.log.rpartition("To end all that are kept: ")[2].strip())
        assert run(home, *command[2:]).out.splitlines()[-1] == "Ended 1 kernel(s)."
        assert kernel_processes(home) == []


def test_a_running_servers_kernels_are_ended_when_they_are_named(
    home: Home, server: Server
) -> None:
    first, second = new_session(server, "a.ipynb"), new_session(server, "work/b.ipynb")
    alone = server.post("/api/kernels", {"name": "python3"}).json()["id"]
    left = run(home, "stop", "--all")
    assert (left.code, left.out) == (1, "")
    assert f"3 kernel(s) belong to a running server, {server.url}" in left.err
    assert "--running" in left.err
    assert len(kernel_processes(home)) == 3

    stopped = run(home, "stop", first["id"][:10], "work/b.ipynb", "--json")
    assert stopped.code == 0
    ended = [result["kernel_id"] for result in stopped.json if result["done"]]
    assert ended == [first["kernel"]["id"], second["kernel"]["id"]]
    assert len(kernel_processes(home)) == 1
    assert sessions(server) == [], "they are dormant"

    revived = run(home, "revive", "a.ipynb", second["id"], "nonsense", alone)
    assert revived.code == 1
    assert revived.out.splitlines() == [
        f"{first['id']} (a.ipynb) is live.",
        f"{second['id']} (work/b.ipynb) is live.",
    ]
    assert "nonsense" in revived.err
    assert f"kernel {alone} has no session" in revived.err
    assert {s["id"] for s in sessions(server)} == {first["id"], second["id"]}

    every = run(home, "stop", "--all", "--running")
    assert (every.code, every.out.splitlines()[-1]) == (0, "Ended 3 kernel(s).")
    assert kernel_processes(home) == []


def test_a_server_that_cannot_be_asked_keeps_its_kernels(home: Home, server: Server) -> None:
    session = new_session(server)
    [told] = home.runtime_dir.glob("jpserver-*.json")
    told.rename(told.with_suffix(".hidden"))
    for arguments in (["--all"], ["--all", "--running"], [session["id"]]):
        refused = run(home, "stop", *arguments)
        assert (refused.code, refused.out) == (1, "")
        assert f"belong to a running server (pid {server.pid}) that cannot be asked" in refused.err
    refused = run(home, "revive", session["id"])
    assert (refused.code, "no server runs" in refused.err) == (3, True)
    assert len(kernel_processes(home)) == 1
    assert f"in use by a server, pid {server.pid}" in run(home, "list").out
    # With its URL and its token it can be asked.
    named = ["--server", f"{server.url}/?token={server.token}"]
    assert run(home, "stop", session["id"], *named).code == 0
    assert kernel_processes(home) == []
    assert run(home, "revive", session["id"], *named).code == 0
    assert [s["id"] for s in sessions(server)] == [session["id"]]


def test_a_kernel_that_cannot_be_started_is_named(home: Home, server: Server) -> None:
    spec = home.data_dir / "kernels" / "gone" / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": command, "display_name": "", "language": "python"}))
    session = new_session(server, kernel={"name": "gone"})
    other = new_session(server, "b.ipynb")
    assert run(home, "stop", session["id"], other["id"]).code == 0
    spec.unlink()
    done = run(home, "revive", session["id"], other["id"], "--json")
    assert done.code == 1
    assert [result["done"] for result in done.json] == [False, True]
    assert "gone" in done.json[0]["message"]
    assert done.json[0]["message"] in done.err


def test_revive_says_how_to_start_a_server_where_none_runs(home: Home) -> None:
    other = home.path / "other root"
    keep(home, Change(sessions=(SESSION,)), other)
    none = run(home, "revive", SESSION.session_id)
    assert (none.code, "jupyter lab" in none.err) == (3, True)
    with Server(home):  # of another root folder
        missing = run(home, "revive", SESSION.session_id)
    assert missing.code == 3
    assert f"--ServerApp.root_dir='{other}'" in missing.err
