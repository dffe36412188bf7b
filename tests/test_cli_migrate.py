"""``migrate`` brings databases up to date that no server uses, and no other."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from commands import held_lease, keep, run
from records import EVERYTHING, SESSION
from servers import Server
from stores import digests, stored
from workspaces import spoil

from jupyter_sessions_ext.storage.migrations import LATEST, MIGRATIONS, VERSION_TABLE

if TYPE_CHECKING:
    from servers import Home

    from jupyter_sessions_ext.folder import Place


def make_old(place: Place, version: int = 1) -> None:
    """Put a database of an earlier version in place, with one session."""
    Path(place.database).unlink()
    with contextlib.closing(sqlite3.connect(place.database)) as connection, connection:
        connection.execute(VERSION_TABLE)
        for migration in MIGRATIONS[:version]:
            for sql in migration.sqlite:
                connection.execute(sql)
            row = (migration.version, migration.name, "2024-01-01T00:00:00+00:00")
            connection.execute("INSERT INTO schema_version VALUES (?,?,?)", row)
        connection.execute("INSERT INTO session VALUES (?,?,?,?,?)", tuple(SESSION.row().values()))
    os.chmod(place.database, 0o600)


def test_all_databases_are_migrated_once_with_a_backup(home: Home) -> None:
    old = keep(home, EVERYTHING, home.path / "old")
    make_old(old)
    current = keep(home, EVERYTHING)
    done = run(home, "migrate", "--json")
    assert done.code == 0, done.err
    results = {Path(result["root_dir"]): result for result in done.json}
    assert results[home.root_dir]["from"] == results[home.root_dir]["to"] == LATEST
    assert results[home.root_dir]["backup"] is None
    result = results[home.path / "old"]
    assert (result["from"], result["to"], result["message"]) == (1, LATEST, "")
    backup = Path(result["backup"])
    assert backup == Path(f"{old.database}.backup-v1")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert [s.path for s in stored(Path(old.database)).sessions] == [SESSION.path]
    before = digests(home.data_dir)
    again = run(home, "migrate")
    assert again.code == 0
    assert again.out.splitlines() == sorted(
        f"{place.database}: up to date (version {LATEST})" for place in (old, current)
    )
    assert digests(home.data_dir) == before


def test_what_cannot_be_migrated_is_named_and_left_alone_and_the_rest_is_done(home: Home) -> None:
    newer, garbage, held, old = (
        keep(home, EVERYTHING, home.path / name) for name in ("newer", "garbage", "held", "old")
    )
    spoil(newer, "newer")
    spoil(garbage, "garbage")
    make_old(held)
    make_old(old)
    databases = [Path(place.database) for place in (newer, garbage, held)]
    before = [database.read_bytes() for database in databases]
    with held_lease(held) as pid:
        done = run(home, "migrate")
    assert done.code == 1
    assert f"{old.database}: brought from version 1 to {LATEST}" in done.out
    assert "upgrade jupyter_sessions_ext" in done.err
    assert f"{garbage.database} is not a SQLite database" in done.err
    assert f"{held.database} is in use by a server (pid {pid})" in done.err
    assert [database.read_bytes() for database in databases] == before


def test_one_database_can_be_named_also_one_of_jupyter_servers_own(home: Home) -> None:
    file = home.path / "stock.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE session (session_id, path, name, type, kernel_id)")
        connection.execute("INSERT INTO session VALUES ('s', 'a.ipynb', NULL, 'notebook', 'k')")
    other = keep(home, EVERYTHING)
    make_old(other)
    before = sorted(home.data_dir.rglob("*"))
    done = run(home, "migrate", "--database", file)
    assert done.code == 0, done.err
    assert f"from version 0 to {LATEST}; the former is in {file}.backup-v0" in done.out
    assert [s.session_id for s in stored(file).sessions] == ["s"]
    assert sorted(home.data_dir.rglob("*")) == before, "nothing was done about the other one"
    missing = run(home, "migrate", "--database", home.path / "missing")
    assert (missing.code, "is no file" in missing.err) == (1, True)


def test_a_running_servers_database_is_up_to_date(home: Home, server: Server) -> None:
    done = run(home, "migrate", "--json")
    assert (done.code, [result["from"] for result in done.json]) == (0, [LATEST])
