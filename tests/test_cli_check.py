"""``check`` finds each fault of a set-up, says what to do, and finds none where there is none."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest
from clients import new_session
from commands import held_lease, keep, run, write_server_file
from homes import kernel_process, without_us
from kept import suspended
from records import EVERYTHING, KERNEL, SESSION
from servers import Home, Server, keepers, wait_until
from workspaces import spoil

from jupyter_sessions_ext.cli.checks import servers as checks
from jupyter_sessions_ext.cli.checks import setup
from jupyter_sessions_ext.host import machine_id
from jupyter_sessions_ext.keeper import takeover
from jupyter_sessions_ext.models import Change
from jupyter_sessions_ext.storage.migrations import LATEST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


Finding = dict[str, str]

CLASSES = """
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager
from jupyter_server.services.sessions.sessionmanager import SessionManager


class Cursor(SessionManager):
    def look(self):
        return self.cursor.execute("SELECT 1")


class Cooperative(SessionManager):
    pass


class Kernels(AsyncMappingKernelManager):
    pass


class Blocking(MappingKernelManager):
    pass
"""


def findings(home: Home, env: Mapping[str, str] | None = None) -> tuple[int, list[Finding]]:
    # Without the systemctl of this host, as it may run these tests.
    done = run(home, "check", "--json", env={"PATH": "", **(env or {})})
    found: list[Finding] = done.json
    for finding in found:
        assert finding["state"] in ("ok", "warning", "problem")
        assert bool(finding["advice"]) == (finding["state"] != "ok"), "it says what to do"
        assert finding["text"]
    assert done.code == (1 if any(f["state"] == "problem" for f in found) else 0)
    return done.code, found


def of(found: list[Finding], name: str, state: str) -> Finding:
    """Return the one finding of a check that is in a state."""
    [finding] = [f for f in found if (f["name"], f["state"]) == (name, state)]
    return finding


def faults(found: list[Finding]) -> list[tuple[str, str]]:
    return [(f["name"], f["state"]) for f in found if f["state"] != "ok"]


def configure(home: Home, text: str) -> None:
    (home.config_dir / "jupyter_server_config.py").write_text(text)


# -------------------------------------------------------------------------- none


def test_a_good_set_up_has_no_faults_with_and_without_a_server(home: Home) -> None:
    with Server(home) as server:
        new_session(server)
        code, found = findings(home)
        assert (code, faults(found)) == (0, [])
        assert server.url in of(found, "server", "ok")["text"]
        assert f"pid {server.pid}" in of(found, "lease", "ok")["text"]
        assert of(found, "kernels", "ok")["text"].endswith(": 1 run")
        [keeper] = keepers(home)
        assert f"pid {keeper.pid} has " in of(found, "keeper", "ok")["text"]
        server.terminate()
        code, found = findings(home)
        assert (code, faults(found)) == (0, [])
        assert f"holds port {server.port} for the next" in of(found, "keeper", "ok")["text"]
        said = run(home, "check", env={"PATH": ""}).out.splitlines()
        assert len(said) == len(found) + 1
        assert said[-1] == f"0 problem(s), 0 warning(s), {len(found)} fine."


def test_a_keeper_that_hangs_or_is_gone_while_no_server_runs_is_found(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "_TIMEOUT", 0.5)
    with Server(home) as server:
        server.execute(new_session(server)["kernel"]["id"], "1")
        server.kill()
        [keeper] = keepers(home)
        with suspended(keeper):
            assert "does not answer" in of(findings(home)[1], "keeper", "warning")["text"]
        keeper.kill()
        wait_until(lambda: not keepers(home), 10, "the keeper had ended")
        assert "there is none" in of(findings(home)[1], "keeper", "warning")["text"]
        server.start()
        wait_until(lambda: keepers(home), 10, "there was another")
        assert faults(findings(home)[1]) == []


# -------------------------------------------------------------------------- the configuration


def test_a_disabled_extension_is_found(home: Home) -> None:
    code, found = findings(home, without_us(home))
    assert code == 1
    finding = of(found, "extension", "problem")
    assert "disabled" in finding["text"]
    assert "jupyter server extension enable jupyter_sessions_ext" in finding["advice"]
    configure(home, "c.ServerApp.jpserver_extensions = {'jupyter_sessions_ext': False}")
    assert "ServerApp.jpserver_extensions" in of(findings(home)[1], "extension", "problem")["text"]


def test_an_extension_that_no_configuration_names_is_found(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "jupyter_config_path", lambda: [str(home.config_dir)])
    assert "no configuration names it" in of(findings(home)[1], "extension", "problem")["text"]


@pytest.mark.parametrize(
    ("trait", "name", "check", "state"),
    [
        ("session_manager_class", "Cursor", "session-manager", "problem"),
        ("session_manager_class", "Cooperative", "session-manager", "ok"),
        ("session_manager_class", "Missing", "session-manager", "problem"),
        ("kernel_manager_class", "Blocking", "kernel-manager", "problem"),
        ("kernel_manager_class", "Kernels", "kernel-manager", "ok"),
        ("kernel_manager_class", "Missing", "kernel-manager", "problem"),
    ],
)
def test_a_manager_class_that_leaves_nothing_to_ours_is_found(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    trait: str,
    name: str,
    check: str,
    state: str,
) -> None:
    (home.path / "classes_of_a_user.py").write_text(CLASSES)
    monkeypatch.syspath_prepend(home.path)
    configure(home, f"c.ServerApp.{trait} = 'classes_of_a_user.{name}'")
    try:
        _, found = findings(home)
    finally:
        sys.modules.pop("classes_of_a_user", None)
    assert name in of(found, check, state)["text"]


def test_a_configuration_that_keeps_little_is_found(home: Home) -> None:
    configure(
        home,
        "print('hello')\n"
        "c.SessionsApp.kernels_on_stop = 'shutdown'\n"
        "c.SessionManager.database_filepath = ':memory:'\n"
        "c.GatewayClient.url = 'http://127.0.0.1:1'\n",
    )
    code, found = findings(home)
    assert code == 0
    assert faults(found) == [
        ("kernel-manager", "warning"),
        ("kernels-on-stop", "warning"),
        ("configuration", "warning"),
    ]
    hub = {"JUPYTERHUB_SERVICE_PREFIX": "/user/a/"}
    configure(home, "")
    assert faults(findings(home, hub)[1]) == [("kernels-on-stop", "warning")]


def test_options_that_have_no_effect_are_found(home: Home) -> None:
    configure(
        home,
        "c.SessionsApp.orphan_timeout = -1\n"
        "c.SessionsApp.kernels_on_stop = 'sometimes'\n"
        "c.SessionsApp.journal_limt = 1\n",
    )
    code, found = findings(home)
    assert code == 1
    assert {f["subject"] for f in found if f["name"] == "options"} == {
        "orphan_timeout", "kernels_on_stop", "journal_limt",
    }  # fmt: skip
    assert set(faults(found)) == {("options", "problem")}


def test_a_configuration_that_cannot_be_loaded_is_found(home: Home) -> None:
    configure(home, "c.ServerApp.port = 1 / 0")
    finding = of(findings(home)[1], "configuration", "problem")
    assert "ZeroDivisionError" in finding["text"]


def test_a_state_folder_that_is_configured_is_looked_at(home: Home) -> None:
    other = home.path / "other"
    configure(home, f"c.SessionsApp.state_dir = {str(other)!r}")
    assert str(other) in of(findings(home)[1], "state-folder", "ok")["text"]


def test_a_platform_where_kernels_cannot_be_kept_is_told(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "POSIX", False)
    assert faults(findings(home)[1]) == [("platform", "warning")]


# -------------------------------------------------------------------------- the state


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("newer", "database"),
        ("garbage", "database"),
        ("a folder", "database"),
        ("open to all", "modes"),
        ("a link", "modes"),
    ],
)
def test_a_state_that_cannot_be_used_is_found(home: Home, how: str, check: str) -> None:
    place = keep(home, EVERYTHING)
    spoil(place, how)
    code, found = findings(home)
    assert code == 1
    assert str(place.folder) in of(found, check, "problem")["text"]


def test_what_others_can_look_into_is_found(home: Home) -> None:
    place = keep(home, EVERYTHING)
    Path(place.database).chmod(0o644)
    _, found = findings(home)
    assert faults(found) == [("modes", "warning")]
    assert f"chmod 0600 '{place.database}'" in of(found, "modes", "warning")["advice"]


def test_a_file_in_the_state_folders_place_is_found(home: Home) -> None:
    (home.data_dir / "jupyter_sessions_ext").touch()
    assert "is no folder" in of(findings(home)[1], "state-folder", "problem")["text"]


def test_a_state_folder_that_cannot_be_written_to_is_found(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    assert "cannot be made" in of(findings(home)[1], "state-folder", "problem")["text"]
    keep(home, EVERYTHING)
    assert "cannot be written to" in of(findings(home)[1], "state-folder", "problem")["text"]


class _Partition(NamedTuple):
    mountpoint: str
    fstype: str


def test_a_network_file_system_is_found(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    table = [_Partition("/", "ext4"), _Partition(str(home.data_dir), "nfs4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: table)  # noqa: A006
    assert faults(findings(home)[1]) == [("file-system", "warning")]


def test_a_read_only_file_system_is_found(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda _: Told)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 0, 10**9))
    assert faults(findings(home)[1]) == [("file-system", "problem")]


@pytest.mark.parametrize(("free", "state"), [(10**8, "warning"), (1000, "problem")])
def test_a_disk_that_is_nearly_full_is_found(
    home: Home, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    usage = shutil._ntuple_diskusage(10**10, 10**10 - free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert faults(findings(home)[1]) == [("disk-space", state)]


def test_a_lease_that_no_server_accounts_for_is_found(home: Home) -> None:
    place = keep(home, EVERYTHING)
    with held_lease(place) as pid:
        _, found = findings(home)
        assert f"pid {pid}" in of(found, "lease", "warning")["text"]
    assert of(findings(home)[1], "lease", "ok")["text"].endswith("no server uses it")
    (place.folder / "lease").unlink()
    (place.folder / "lease").mkdir()
    assert str(place.folder) in of(findings(home)[1], "lease", "problem")["text"]


def test_an_old_and_a_missing_database_are_found(home: Home) -> None:
    place = keep(home, EVERYTHING)
    with closing(sqlite3.connect(place.database)) as connection, connection:
        connection.execute("DELETE FROM schema_version WHERE version=?", (LATEST,))
        connection.execute("DROP INDEX event_by_time")
        connection.execute("ALTER TABLE session_detail DROP COLUMN created_by")
    assert "jupyter sessions migrate" in of(findings(home)[1], "database", "warning")["advice"]
    Path(place.database).unlink()
    assert "is gone" in of(findings(home)[1], "database", "warning")["text"]


def test_kernels_that_have_ended_and_that_nobody_has_recorded_are_found(home: Home) -> None:
    kernel = replace(KERNEL, machine=machine_id(), intent=None, kernel_id="was-here")
    with Server(home) as server:
        session = new_session(server)
        server.terminate()
        process = kernel_process(home, session["kernel"]["id"])
        place = keep(
            home,
            Change(
                sessions=(SESSION,),
                kernels=(kernel,),
                forgotten_kernels=(session["kernel"]["id"],),
            ),
        )
        _, found = findings(home)
        told = [f["text"] for f in found if (f["name"], f["state"]) == ("kernels", "warning")]
        assert [("was-here" in text, str(process.pid) in text) for text in told] == [
            (False, True),
            (True, False),
        ]
        assert place.key in place.database


# -------------------------------------------------------------------------- servers


def test_a_server_that_runs_without_us_is_found(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    with server_factory(env=without_us(home)) as server:
        code, found = findings(home)
        assert code == 1
        finding = of(found, "server", "problem")
        assert finding["subject"] == server.url
        assert "without jupyter_sessions_ext" in finding["text"]


def test_a_server_that_cannot_store_or_keeps_nothing_is_found(
    home: Home, server_factory: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    with server_factory() as server:
        [place] = [p for p in (home.data_dir / "jupyter_sessions_ext").iterdir() if p.is_dir()]
        with monkeypatch.context() as patch:
            patch.setattr(checks, "__version__", "9.9")
            assert "restart it" in of(findings(home)[1], "server", "warning")["advice"]
        (place / "sessions.sqlite").unlink()
        _, found = findings(home)
        assert "cannot store changes" in of(found, "server", "problem")["text"]
        server.kill()
    memory = "--SessionManager.database_filepath=:memory:"
    with server_factory(args=[memory]):
        assert "keeps nothing" in of(findings(home)[1], "server", "warning")["text"]


def test_a_server_that_does_not_answer_is_found(home: Home) -> None:
    write_server_file(home, "http://127.0.0.1:1/")
    assert "nothing answers" in of(findings(home)[1], "server", "warning")["text"]


# -------------------------------------------------------------------------- systemd

SERVICE = "0::/system.slice/jupyter.service\n"
USERS = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/jupyter.service\n"


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a systemd that says what it is asked to, and the place where processes are told of."""

    def make(cgroup: str, mode: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        command = folder / "systemctl"
        command.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\necho {mode}\n')
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        for pid in (7, os.getpid()):
            (tmp_path / "proc" / str(pid)).mkdir(parents=True, exist_ok=True)
            (tmp_path / "proc" / str(pid) / "cgroup").write_text(cgroup)
        return tmp_path / "proc"

    return make


@pytest.mark.parametrize(
    ("cgroup", "mode", "state", "asked"),
    [
        (SERVICE, "control-group", "problem", "show --property=KillMode --value jupyter.service"),
        (SERVICE, "mixed", "problem", "show"),
        (SERVICE, "process", "ok", "show"),
        (USERS, "control-group", "problem", "--user show"),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/init.scope\n",
            "control-group",
            "ok",
            "",
        ),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "control-group", "ok", ""),
        ("12:pids:/system.slice/old.service\n0::/\n", "control-group", "problem", "old.service"),
    ],
)
def test_a_systemd_that_would_end_kernels_is_found(
    systemd: Callable[..., Path], tmp_path: Path, cgroup: str, mode: str, state: str, asked: str
) -> None:
    [finding] = checks.systemd([7], proc=systemd(cgroup, mode))
    assert finding.state == state
    log = tmp_path / "asked"
    assert asked in (log.read_text() if log.exists() else "")
    assert ("KillMode=process" in finding.advice) == (state == "problem")


def test_without_a_server_it_is_told_what_would_become_of_one_from_here(
    systemd: Callable[..., Path], tmp_path: Path
) -> None:
    [finding] = checks.systemd([], proc=systemd(SERVICE, "control-group"))
    assert finding.state == "warning"
    [finding] = checks.systemd([8], proc=tmp_path / "proc")
    assert finding.state == "ok"


# -------------------------------------------------------------------------- who else has it


def test_a_root_folder_that_was_moved_is_found(home: Home) -> None:
    keep(home, EVERYTHING)
    home.root_dir.rename(home.path / "moved")
    finding = of(findings(home)[1], "root-folder", "warning")
    assert str(home.root_dir) in finding["text"]
    assert "export" in finding["advice"]


@pytest.mark.parametrize("is_hidden", [False, True])
def test_a_state_folder_that_the_file_browser_shows_is_found(home: Home, is_hidden: bool) -> None:
    keep(home, EVERYTHING, root_dir=home.path if not is_hidden else home.path.parent)
    if is_hidden:
        hidden = home.path.with_name(".hidden")
        home.path.rename(hidden)
        hidden_home = hidden / "data"
        env = {"JUPYTER_DATA_DIR": str(hidden_home)}
        assert "state-folder" not in [name for name, _ in faults(findings(home, env)[1])]
        env["JUPYTER_CONFIG_DIR"] = str(hidden / "config")
        config = hidden / "config" / "jupyter_server_config.py"
        config.write_text("c.ContentsManager.allow_hidden = True")
    else:
        env = {}
    finding = of(findings(home, env)[1], "state-folder", "warning")
    assert "file browser" in finding["text"]


def test_a_lease_whose_file_was_read_by_its_own_server_is_found(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    args = [f"--SessionsApp.state_dir={home.root_dir / 'state'}"]
    with server_factory(args=args) as server:
        new_session(server)
        state_dir = home.root_dir / "state"
        [folder] = state_dir.iterdir()
        assert server.get(f"/files/state/{folder.name}/lease").status_code == 200
        done = run(home, "--state-dir", state_dir, "check", "--json", env={"PATH": ""})
        finding = of(done.json, "lease", "warning")
        assert f"pid {server.pid} has it by one lock of two" in finding["text"]


def test_a_keeper_that_cannot_be_started_is_found(home: Home) -> None:
    packages = home.path / "packages"
    packages.mkdir()
    (packages / "zmq.py").write_text("raise ImportError('no zmq here')")
    paths = [str(packages), *sys.path]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", paths)
        finding = of(findings(home)[1], "keeper-start", "problem")
    assert "it ended with code 1" in finding["text"]
    assert "no zmq here" in finding["text"]
