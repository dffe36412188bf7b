"""``migrate``: bring databases to the schema of this version, while no server uses them."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import SchemaTooNewError, SessionsError
from ..folder import Place, places, prepare
from ..lease import HOLDER, LEASE, Lease
from ..storage.migrations import LATEST
from ..storage.sqlite import is_sqlite_file
from ..workspace import store_of
from .kept import about, places_in
from .outcome import CommandError, tell
from .sources import Where
from .tables import print_json

Result = dict[str, Any]


def migrate(options: argparse.Namespace, where: Where) -> int:
    """Migrate all databases, or one."""
    problems: list[str] = []
    results: list[Result] = []
    for place in _places(options, where, problems):
        result = {**about(place), "from": None, "to": LATEST, "backup": None, "message": ""}
        try:
            _migrate(place, result)
        except (SessionsError, CommandError, OSError) as error:
            result["message"] = str(error)
            problems.append(str(error))
        results.append(result)
    if options.json:
        print_json(results)
    else:
        for result in results:
            if not result["message"]:
                print(f"{result['database']}: {_told(result)}")
        if not results and not problems:
            print("No database is kept.")
    return tell(problems)


def _places(options: argparse.Namespace, where: Where, problems: list[str]) -> Iterator[Place]:
    if options.database is None:
        for place in places_in(where.state_dir, problems):
            same = where.root_dir is None or (
                os.path.realpath(where.root_dir) == os.path.realpath(place.root_dir)
            )
            if same and os.path.exists(place.database):
                yield place
    elif os.path.isfile(options.database):
        # A server with this file in its configuration would take the lease of this place.
        yield next(places(where.state_dir, "", options.database))
    else:
        problems.append(f"--database: {options.database} is no file")


def _migrate(place: Place, result: Result) -> None:
    if not is_sqlite_file(place.database):
        raise CommandError(
            f"{place.database} is not a SQLite database; the next server moves it aside"
        )
    holder = Lease.holder(place.folder) if place.folder.is_dir() else None
    store = store_of(place)
    result["from"] = store.peek_version(unused=holder is None)
    if result["from"] > LATEST:
        raise SchemaTooNewError(place.database, result["from"], LATEST)
    if result["from"] == LATEST:
        return
    if holder is not None:
        raise CommandError(
            f"{place.database} is in use by a server ({holder}) of another "
            "version: stop it first (`jupyter server stop`)"
        )
    is_new = not place.folder.is_dir()
    prepare(place)
    lease = Lease.take(place.folder, "migrate")
    if lease is None:
        raise CommandError(f"{place.database}: a server has just started with it")
    try:
        store.open()
        result["backup"] = store.backup
    finally:
        lease.release()
        if is_new:
            _remove_empty(place.folder)


def _remove_empty(folder: Path) -> None:
    """Remove what was made for the lease alone: no server has used this file so far."""
    with contextlib.suppress(OSError):
        for name in (LEASE, HOLDER):
            (folder / name).unlink(missing_ok=True)
        (folder / "logs").rmdir()
        folder.rmdir()


def _told(result: Result) -> str:
    if result["from"] == result["to"]:
        return f"up to date (version {result['to']})"
    backup = f"; the former is in {result['backup']}" if result["backup"] else ""
    return f"brought from version {result['from']} to {result['to']}{backup}"
