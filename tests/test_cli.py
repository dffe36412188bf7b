"""The command line as a whole: what is called wrong, what cannot be read, and what it changes."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clients import new_session
from commands import MODULE, held_lease, keep, on_terminal, run, write_server_file
from homes import state_folder
from records import EVENT, EVERYTHING, KERNEL, SESSION
from servers import Home, Server
from stores import digests
from workspaces import spoil

from jupyter_sessions_ext.cli import units
from jupyter_sessions_ext.host import machine_id
from jupyter_sessions_ext.lease import Lease
from jupyter_sessions_ext.models import Change, KernelPhase, SessionState

if TYPE_CHECKING:
    from collections.abc import Callable

# -------------------------------------------------------------------------- calls


@pytest.mark.parametrize(
    "call",
    [
        "",
        "nonsense",
        "list --state asleep",
        "list --idle-longer-than soon",
        "list --idle-longer-than -1",
        "list --idle-longer-than 1e99",
        "list --sort size",
        "show",
        "revive",
        "stop",
        "stop --all some-id",
        "stop --running some-id",
        "history --action nonsense",
        "history --since yesterday",
        "history --limit -1",
        "log some-id --bytes 0",
        "log some-id --bytes 1048577",
        "import",
        "--state-dir no-such-folder list",
        "list --state-dir no-such-folder",
        "list --server localhost",
        "list --server ftp://127.0.0.1/",
    ],
)
def test_a_wrong_call_is_refused_with_exit_code_2(home: Home, call: str) -> None:
    done = run(home, *shlex.split(call))
    assert (done.code, done.out) == (2, "")
    assert "jupyter sessions" in done.err


@pytest.mark.parametrize("verb", ["list", "stop --all", "history", "migrate", "check"])
def test_where_nothing_is_kept_there_is_nothing_to_do(home: Home, verb: str) -> None:
    done = run(home, *verb.split())
    assert (done.code, done.err) == (0, "")
    as_json = run(home, *verb.split(), "--json")
    assert as_json.code == 0
    assert isinstance(as_json.json, list)


def test_times_are_told_in_several_ways() -> None:
    assert [units.duration(t) for t in ("90", "30s", "15m", "2h", "7d", "1.5w")] == [
        90, 30, 900, 7200, 604800, 907200,
    ]  # fmt: skip
    assert units.moment("2026-01-31T12:00Z").isoformat() == "2026-01-31T12:00:00+00:00"
    assert units.moment("2026-01-31T12:00+02:00").isoformat() == "2026-01-31T10:00:00+00:00"
    sizes = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 54_321_000: "54 MB", 3.2e9: "3.2 GB"}
    assert {n: units.size(n) for n in sizes} == sizes


# -------------------------------------------------------------------------- the process


def test_ctrl_c_ends_it_at_once_and_quietly(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        hung.settimeout(30)
        write_server_file(home, f"http://127.0.0.1:{hung.getsockname()[1]}/")
        process = subprocess.Popen(
            [*MODULE, "list"],
            env=home.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        connection, _ = hung.accept()
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=4)  # it would have waited for 5 seconds
        finally:
            process.kill()
            process.communicate()
            connection.close()
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_that_goes_away_is_no_fault(home: Home) -> None:
    sessions = tuple(replace(SESSION, session_id=f"{'s' * 100}{n}") for n in range(2000))
    keep(home, Change(sessions=sessions))
    command = f"{shlex.join([*MODULE, 'list'])} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env=home.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert str(home.root_dir) in done.stdout


def test_a_name_can_neither_steer_a_terminal_nor_be_unprintable(home: Home) -> None:
    path = "\x1b[2Jred\nline ⌘.ipynb"
    keep(home, Change(sessions=(replace(SESSION, path=path),)))
    for encoding in ("utf-8", "ascii"):
        done = subprocess.run(
            [*MODULE, "list"],
            env={**home.environment(), "PYTHONIOENCODING": encoding},
            capture_output=True,
            timeout=60,
            check=True,
        )
        assert rb"\x1b[2Jred\nline" in done.stdout
        assert len(done.stdout.splitlines()) == 3
    assert run(home, "list", "--json").json[0]["path"] == path


def test_a_terminal_gets_short_ids_and_colours(home: Home) -> None:
    ids = [f"{n}2345678-aaaa-bbbb-cccc-{'d' * 12}" for n in range(2)]
    keep(home, Change(sessions=tuple(replace(SESSION, session_id=i) for i in ids)))
    for term, is_coloured in (("xterm", True), ("dumb", False)):
        said = on_terminal(home, "list", TERM=term)
        assert ("\x1b[" in said) == is_coloured
        assert ids[0][:8] in said
        assert ids[0] not in said
    assert run(home, "show", ids[0][:8]).code == 0
    assert "problem(s)" in on_terminal(home, "check")


# -------------------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize("how", ["newer", "garbage", "open to all", "a link", "a folder"])
@pytest.mark.parametrize("verb", ["list", "history", "stop --all", "show s"])
def test_what_cannot_be_read_is_named_and_the_rest_is_shown(
    home: Home, how: str, verb: str
) -> None:
    spoilt = keep(home, EVERYTHING, home.path / "spoilt")
    keep(home, Change(sessions=(replace(SESSION, session_id="sound", path="sound.ipynb"),)))
    spoil(spoilt, how)
    done = run(home, *verb.split())
    assert done.code == 1
    assert str(spoilt.folder) in done.err
    if verb == "list":
        assert "sound.ipynb" in done.out
        listed = run(home, "list", "--json")
        ids = {item["id"] for item in listed.json} - ({"s"} if how == "a link" else set())
        assert (listed.code, ids) == (1, {"sound"}), "the link itself is not followed"


@pytest.mark.parametrize("what", ["state folder", "workspace.json"])
def test_a_state_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    home: Home, what: str
) -> None:
    place = keep(home, EVERYTHING)
    if what == "state folder":
        place.folder.parent.rename(home.path / "elsewhere")
        place.folder.parent.touch()
    else:
        place.about.unlink()
        place.about.mkdir()
    done = run(home, "list")
    assert (done.code, done.out) == (1, "")
    assert "cannot be read" in done.err


# -------------------------------------------------------------------------- reading


def test_reading_changes_nothing_and_takes_no_lease(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = keep(home, EVERYTHING)
    place.folder.chmod(0o755)
    before = digests(home.path)

    def taken(folder: Path) -> Any:
        raise AssertionError("a server that starts now would find it taken")

    monkeypatch.setattr(Lease, "take", taken)
    for verb in ("list", "show s", "history", "log s", "export", "migrate", "check"):
        run(home, *verb.split())
    assert digests(home.path) == before
    assert place.folder.stat().st_mode & 0o777 == 0o755


def test_a_session_whose_kernel_has_ended_is_shown_as_the_next_server_finds_it(home: Home) -> None:
    live = replace(SESSION, state=SessionState.LIVE, reason="")
    kernel = replace(KERNEL, machine=machine_id(), phase=KernelPhase.RUNNING, intent=None)
    place = keep(home, Change(sessions=(live,), kernels=(kernel,)))
    [item] = run(home, "list", "--json").json
    assert (item["state"], item["kernel"]) == ("dormant", None)
    assert item["reason"] == "its kernel ended while no server ran"
    with held_lease(place) as pid:  # its server has yet to note that
        [item] = run(home, "list", "--json").json
        assert item["state"] == "live"
        assert f"in use by a server, pid {pid}" in run(home, "list").out


def test_one_of_several_root_folders_can_be_chosen(home: Home) -> None:
    roots = [home.path / name for name in ("one", "two")]
    for day, root in enumerate(roots):
        session = replace(SESSION, session_id=root.name, path="same.ipynb")
        event = replace(EVENT, session_id=root.name, time=EVENT.time + timedelta(days=day))
        keep(home, Change(sessions=(session,), events=(event,)), root)
    assert [i["id"] for i in run(home, "list", "--json").json] == ["one", "two"]
    assert [i["id"] for i in run(home, "list", "--json", "--root-dir", roots[1]).json] == ["two"]
    unclear = run(home, "show", "same.ipynb")
    assert (unclear.code, "one" in unclear.err, "two" in unclear.err) == (1, True, True)
    assert run(home, "show", "same.ipynb", "--root-dir", roots[0]).code == 0
    keep(home, Change(sessions=(replace(SESSION, session_id="one"),)), roots[1])  # it was imported
    assert run(home, "show", "one").code == 1
    assert run(home, "history", "one", "--root-dir", roots[0]).code == 0
    assert [e["session_id"] for e in run(home, "history", "--json").json] == ["two", "one"]
    assert len(run(home, "history", "--json", "--limit", "1").json) == 1
    assert len(run(home, "migrate", "--json", "--root-dir", roots[0]).json) == 1
    which = run(home, "export")
    assert (which.code, str(roots[0]) in which.err) == (2, True)


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
        said: list[Any] = [server.log, *answers, run(home, "list").out]
        for text in said:
            assert key not in text
            assert "hunter2" not in text
    assert b"hunter2" not in (state_folder(home) / "sessions.sqlite").read_bytes()
