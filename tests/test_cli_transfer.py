"""``export`` and ``import`` through a server, without one, and from the one to the other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from clients import new_session, sessions
from commands import Done, held_lease, keep, run
from records import EVENT, EVERYTHING, SESSION
from servers import Home, Server
from workspaces import spoil

from jupyter_sessions_ext.administration.transfer import VERSION
from jupyter_sessions_ext.cli import transfer
from jupyter_sessions_ext.models import Change

if TYPE_CHECKING:
    from pathlib import Path

KEPT = replace(EVERYTHING, sessions=(replace(SESSION, session_id="s-0-0-0-0"),))
MANY = Change(
    sessions=tuple(
        replace(SESSION, session_id=f"s-0-0-0-{n}", path=f"{n}.ipynb") for n in range(1200)
    ),
    events=tuple(replace(EVENT, session_id=f"s-0-0-0-{n}") for n in range(1200)),
)


@pytest.fixture
def file(home: Home) -> Path:
    return home.path / "sessions.ndjson"


@pytest.fixture
def other(tmp_path: Path) -> Home:
    """Return another home, as on another host."""
    return Home(tmp_path / "other")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def counts(done: Done) -> list[int]:
    assert done.code == 0, done.err
    return [done.json[name] for name in ("sessions", "events", "known_sessions", "known_events")]


def test_what_is_exported_through_a_server_is_what_is_exported_without_it(
    home: Home, server: Server, file: Path, other: Home
) -> None:
    new_session(server, "a.ipynb")
    server.delete(f"/api/kernels/{new_session(server, 'b.ipynb')['kernel']['id']}")
    through = run(home, "export", "-o", file, "--json")
    assert (through.json["sessions"], through.json["events"]) == (2, 3)
    server.terminate()
    alone = run(home, "export")
    assert lines(alone.out)[1:] == lines(file.read_text())[1:]
    assert "exported 2 session(s) and 3 event(s)" in alone.err
    # It is taken over once, without a server and through one.
    new = ["--json", "--root-dir", str(other.root_dir)]
    assert counts(run(other, "import", file, *new)) == [2, 3, 0, 0]
    assert counts(run(other, "import", file, *new)) == [0, 0, 2, 3]
    with Server(other) as elsewhere:
        assert counts(run(other, "import", "-", "--json", text=file.read_bytes())) == [0, 0, 2, 3]
        assert sessions(elsewhere) == []
        revived = run(other, "revive", "a.ipynb")
        assert revived.code == 0, revived.err
        [session] = sessions(elsewhere)
        assert session["id"] == lines(alone.out)[1]["session"]["id"]
        refused = run(other, "import", "-", text=b'{"format": "other"}\n')
        assert (refused.code, "line 1" in refused.err) == (1, True)


def test_a_large_export_is_taken_over_in_parts(
    home: Home, file: Path, other: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(home, MANY)
    exported = run(home, "export", "--output", file, "--json").json
    assert (exported["sessions"], exported["events"]) == (1200, 1200)
    monkeypatch.setattr(transfer, "_AT_ONCE", 20_000)
    taken = [*transfer._split(file.read_bytes())]
    done = run(other, "import", file, "--json", "--root-dir", other.root_dir)
    assert counts(done) == [1200, 1200, 0, 0]
    assert len(taken) > 10
    assert max(map(len, taken)) < 21_000
    again = lines(run(other, "export").out)[1:]
    assert again[0]["session"]["path"] == "0.ipynb"
    assert sum("session" in line for line in again) == 1200


HEADER = b'{"format": "%s", "version": %d, "exported_at": "2026-01-01T00:00:00Z"}\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "line 1"),
        (b"nonsense", "line 1"),
        (HEADER % (b"another", VERSION), "format"),
        (HEADER % (b"jupyter_sessions_ext", VERSION + 1), "upgrade"),
        (HEADER % (b"jupyter_sessions_ext", VERSION) + b'\n{"session": 5}\n', "line 3"),
    ],
)
def test_what_is_no_export_is_refused_as_a_whole(
    home: Home, file: Path, text: bytes, reason: str
) -> None:
    keep(home, EVERYTHING)
    file.write_bytes(text)
    done = run(home, "import", file)
    assert (done.code, done.out) == (1, "")
    assert reason in done.err
    assert len(run(home, "list", "--json").json) == 1


def test_a_file_that_cannot_be_read_or_written_is_named(home: Home, file: Path) -> None:
    keep(home, EVERYTHING)
    missing = home.path / "missing" / "file"
    for verb, path in (("import", missing), ("export --output", missing), ("import", home.path)):
        done = run(home, *verb.split(), path)
        assert (done.code, str(path) in done.err) == (1, True)
    file.mkdir()
    assert run(home, "export", "-o", file).code == 1


def test_an_export_that_fails_leaves_no_file(home: Home, file: Path) -> None:
    place = keep(home, EVERYTHING)
    spoil(place, "garbage")
    done = run(home, "export", "-o", file)
    assert (done.code, place.database in done.err) == (1, True)
    taken = run(home, "import", "-", text=HEADER % (b"jupyter_sessions_ext", VERSION))
    assert (taken.code, place.database in taken.err) == (1, True)
    assert not file.exists()


def test_what_two_servers_have_left_at_once_is_not_taken_for_the_whole(home: Home) -> None:
    place = keep(home, EVERYTHING)
    shutil.copytree(place.folder, place.folder.with_name(f"{place.key}-2"))
    done = run(home, "export")
    assert (done.code, "start one, which takes over" in done.err) == (1, True)


def test_nothing_is_imported_beside_a_server(home: Home, file: Path) -> None:
    place = keep(home, KEPT)
    run(home, "export", "-o", file)
    with held_lease(place):
        done = run(home, "import", file)
        assert (done.code, "a server uses it" in done.err) == (1, True)
        assert run(home, "export", "-o", file).code == 0, "to read it is no fault"


def test_it_must_be_known_which_root_folder_is_meant(home: Home, file: Path) -> None:
    assert (run(home, "export").code, "--root-dir" in run(home, "export").err) == (1, True)
    keep(home, KEPT)
    run(home, "export", "-o", file)
    unknown = run(home, "import", file, "--root-dir", home.path / "missing")
    assert (unknown.code, "is no folder" in unknown.err) == (1, True)
    keep(home, EVERYTHING, home.path)
    for command in ("export", f"import {file}"):
        unclear = run(home, *command.split())
        assert (unclear.code, str(home.root_dir) in unclear.err) == (2, True)
    assert run(home, "export", "--root-dir", home.path).code == 0
