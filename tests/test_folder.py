"""The state folder: one server at a time, for its user alone, found again by its root folder."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from commands import another_process
from conftest import require

from jupyter_sessions_ext import lease as lease_module
from jupyter_sessions_ext.errors import StateRefusedError
from jupyter_sessions_ext.folder import (
    Place,
    describe,
    discard,
    faults,
    known_places,
    places,
    prepare,
)
from jupyter_sessions_ext.keeper.ring import folder_name
from jupyter_sessions_ext.lease import Holder, Lease

TAKE = """
import subprocess
import sys
from pathlib import Path
from jupyter_sessions_ext.keeper.ring import folder_name
from jupyter_sessions_ext.lease import Holder, Lease

# A child inherits what can be inherited, and lives until the end.
WAIT = "import sys; sys.stdin.read()"
lease = Lease.take(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", WAIT], close_fds=False)
print("taken" if lease else "refused", flush=True)
exec(WAIT)
"""


@pytest.fixture(autouse=True)
def no_mask() -> Iterator[None]:
    """Make files as open as they are asked to be, so that no umask hides a wrong mode."""
    mask = os.umask(0)
    yield
    os.umask(mask)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "data" / "state"


@pytest.fixture
def root_dir(tmp_path: Path) -> Path:
    path = tmp_path / "notebooks"
    path.mkdir()
    return path


@pytest.fixture
def place(state_dir: Path, root_dir: Path) -> Place:
    return next(places(state_dir, str(root_dir), None))


def mode(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


# -------------------------------------------------------------------------- the lease


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Lease]:
    lease = Lease.take(tmp_path)
    assert lease is not None
    yield lease
    lease.release()


@pytest.mark.usefixtures("lease")
def test_a_lease_is_not_taken_twice_in_one_process(tmp_path: Path) -> None:
    assert Lease.take(tmp_path) is None


@pytest.mark.usefixtures("lease")
def test_a_lease_is_not_taken_by_another_process(tmp_path: Path) -> None:
    with another_process(TAKE, tmp_path) as (outcome, _):
        assert outcome == "refused"


@pytest.mark.usefixtures("lease")
def test_a_refused_attempt_in_the_same_process_does_not_free_the_lease(tmp_path: Path) -> None:
    """Closing any descriptor of a file frees the POSIX locks that its process has on it."""
    assert Lease.take(tmp_path) is None
    with another_process(TAKE, tmp_path) as (outcome, _):
        assert outcome == "refused"


def test_a_lease_that_was_released_can_be_taken(tmp_path: Path, lease: Lease) -> None:
    lease.release()
    lease.release()
    with another_process(TAKE, tmp_path) as (outcome, _):
        assert outcome == "taken"
        assert Lease.take(tmp_path) is None


def test_kill_9_of_its_holder_frees_a_lease_although_its_children_live(tmp_path: Path) -> None:
    with another_process(TAKE, tmp_path) as (outcome, process):
        assert outcome == "taken"
        process.kill()
        process.wait()
        lease = Lease.take(tmp_path)
        assert lease is not None
        lease.release()


def test_the_holder_of_a_lease_is_told_without_taking_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Lease.holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    with another_process(TAKE, tmp_path) as (_, process):
        assert Lease.holder(tmp_path) == Holder(process.pid)
        with monkeypatch.context() as patch:
            patch.setattr(lease_module, "NAMES_LOCKERS", False)
            assert Lease.holder(tmp_path) == Holder(0)
        assert Lease.take(tmp_path) is None
    assert Lease.holder(tmp_path) is None
    monkeypatch.setattr(lease_module, "NAMES_LOCKERS", False)
    assert Lease.holder(tmp_path) is None


@pytest.mark.usefixtures("lease")
def test_a_lease_is_its_users_alone(tmp_path: Path) -> None:
    assert mode(tmp_path / "lease") == 0o600


def test_a_folder_without_a_lease_to_take_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        Lease.take(tmp_path / "missing")
    (tmp_path / "lease").write_bytes(b"garbage" * 1000)
    with pytest.raises(OSError, match="no lease"):
        Lease.take(tmp_path)


# -------------------------------------------------------------------------- who may see it


def test_the_state_folder_is_made_for_its_user_alone(place: Place, state_dir: Path) -> None:
    prepare(place)
    assert [mode(p) for p in (state_dir, place.folder, place.folder / "logs")] == [0o700] * 3
    prepare(place)


def test_folders_and_files_that_others_can_read_are_closed_to_them(
    place: Place, state_dir: Path
) -> None:
    (place.folder / "logs").mkdir(parents=True)
    files = [Path(place.database + suffix) for suffix in ("", "-wal", "-shm")]
    for file in files:
        file.touch()
        file.chmod(0o644)
    folders = [state_dir, place.folder, place.folder / "logs"]
    for path in folders:
        path.chmod(0o755)
    told = {(fault.path, fault.is_refused) for fault in faults(place)}
    assert told == {(path, False) for path in (*folders, *files)}
    prepare(place)
    assert list(faults(place)) == []
    assert {mode(path) for path in folders} == {0o700}
    assert {mode(path) for path in files} == {0o600}


def test_what_is_closed_more_tightly_stays_so(place: Place) -> None:
    prepare(place)
    Path(place.database).touch()
    Path(place.database).chmod(0o400)
    prepare(place)
    assert mode(place.database) == 0o400


PARTS = {
    "state folder": lambda place: place.folder.parent,
    "workspace": lambda place: place.folder,
    "logs": lambda place: place.folder / "logs",
    "database": lambda place: Path(place.database),
    "log of the database": lambda place: Path(f"{place.database}-wal"),
    "index of the log": lambda place: Path(f"{place.database}-shm"),
}


@pytest.fixture(params=list(PARTS))
def part(request: pytest.FixtureRequest, place: Place) -> Path:
    """Return each folder and file of a place's state."""
    prepare(place)
    path: Path = PARTS[request.param](place)
    if not path.exists():
        path.touch(mode=0o600)
    prepare(place)
    return path


@pytest.mark.parametrize("writable", [0o020, 0o002], ids=["by the group", "by all"])
def test_what_others_can_write_is_refused_and_left_as_it_is(
    place: Place, part: Path, writable: int
) -> None:
    part.chmod(mode(part) | writable)
    before = mode(part)
    with pytest.raises(StateRefusedError, match="others may write") as refusal:
        prepare(place)
    assert refusal.value.location == str(part)
    assert [(fault.path, fault.reason) for fault in faults(place)] == [(part, refusal.value.reason)]
    assert mode(part) == before


def test_a_symbolic_link_is_refused(place: Place, part: Path) -> None:
    target = part.rename(place.folder.parents[1] / "elsewhere")
    part.symlink_to(target)
    with pytest.raises(StateRefusedError, match="symbolic link"):
        prepare(place)
    assert [fault.path for fault in faults(place)] == [part]


def test_a_dangling_symbolic_link_is_refused(place: Place) -> None:
    prepare(place)
    os.symlink("nowhere", place.database)
    with pytest.raises(StateRefusedError, match="symbolic link"):
        prepare(place)


def test_what_belongs_to_another_user_is_refused(place: Place, part: Path) -> None:
    require(os.geteuid() == 0, "root, who can give files to others,")
    os.chown(part, 12345, -1)
    with pytest.raises(StateRefusedError, match="belongs to user 12345"):
        prepare(place)


def test_a_file_in_the_folders_place_is_an_error(place: Place) -> None:
    place.folder.parent.mkdir(parents=True, mode=0o700)
    place.folder.touch()
    with pytest.raises(OSError, match=re.escape(place.key)):
        prepare(place)


# -------------------------------------------------------------------------- names


def test_a_place_is_named_after_its_root_folder(place: Place, state_dir: Path) -> None:
    assert re.fullmatch(r"notebooks-[0-9a-f]{12}", place.key)
    assert place.folder == state_dir / place.key
    assert place.database == str(place.folder / "sessions.sqlite")
    assert place.log_file("k") == place.folder / "logs" / "kernel-k.log"
    odd = ["x:1", "x@1", "x_1", "x%3A1", "X:1", "..", "a/b", "x" * 201, "x" * 202, "ж" * 100, ""]
    logs = {place.log_file(kernel_id) for kernel_id in odd}
    assert len(logs) == len(odd)
    assert {log.parent for log in logs} == {place.folder / "logs"}
    assert max(len(os.fsencode(log.name)) for log in logs) <= 255
    assert len({folder_name(kernel_id) for kernel_id in odd}) == len(odd)


def test_its_siblings_are_numbered(place: Place, state_dir: Path, root_dir: Path) -> None:
    keys = [p.key for p in places(state_dir, str(root_dir), None)]
    assert keys[:3] == [place.key, f"{place.key}-2", f"{place.key}-3"]
    assert len(keys) == len(set(keys)) < 1000


def key(state_dir: Path, root_dir: Path | str, database: Path | str | None = None) -> str:
    return next(places(state_dir, str(root_dir), str(database) if database else None)).key


def test_one_root_folder_has_one_name_however_it_is_reached(
    place: Place, state_dir: Path, root_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = root_dir.with_name("link")
    link.symlink_to(root_dir)
    monkeypatch.chdir(root_dir)
    assert {key(state_dir, path) for path in (link, f"{root_dir}/", ".")} == {place.key}


def test_folders_of_one_name_differ(state_dir: Path, tmp_path: Path) -> None:
    assert key(state_dir, tmp_path / "a" / "x") != key(state_dir, tmp_path / "b" / "x")


def test_another_host_has_other_names(
    place: Place, state_dir: Path, root_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_sessions_ext.folder.machine_id", lambda: "another host")
    assert key(state_dir, root_dir) != place.key


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Übung 1: a/b", "b"),
        ("my notebooks", "my-notebooks"),
        ("Übung", "bung"),
        ("日本", "root"),
        (".hidden.", "hidden"),
        ("--", "root"),
        ("x" * 200, "x" * 40),
    ],
)
def test_any_folder_name_makes_a_safe_name(state_dir: Path, name: str, shown: str) -> None:
    assert re.fullmatch(rf"{shown}-[0-9a-f]{{12}}", key(state_dir, f"/srv/{name}"))


def test_the_root_of_all_folders_has_a_name(state_dir: Path) -> None:
    assert key(state_dir, "/").startswith("root-")


# -------------------------------------------------------------------------- explicit databases


def test_an_explicit_database_is_used_where_it_is(
    state_dir: Path, root_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.v1.db"
    first, second = islice(places(state_dir, str(root_dir), str(file)), 2)
    assert first.database == str(file)
    # Beside the user's file there may be others of the user's.
    assert second.database == str(second.folder / "sessions.sqlite")
    assert (first.folder, second.folder) == (state_dir / first.key, state_dir / f"{first.key}-2")
    assert first.root_dir == str(root_dir)


def test_an_explicit_database_is_a_workspace_whatever_the_root_folder(
    state_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.db"
    link = tmp_path / "link.db"
    link.symlink_to(file)
    assert key(state_dir, "/a", file) == key(state_dir, "/b", file) == key(state_dir, "/a", link)
    assert key(state_dir, "/a", file) != key(state_dir, file)


def test_an_explicit_database_may_have_been_writable_by_the_group(
    state_dir: Path, root_dir: Path, tmp_path: Path
) -> None:
    """As the umask of many systems has it; nothing says that anybody else wrote there."""
    place = next(places(state_dir, str(root_dir), str(tmp_path / "mine.db")))
    sqlite3.connect(place.database).close()
    Path(place.database).touch()
    Path(place.database).chmod(0o664)
    prepare(place)
    assert mode(place.database) == 0o600
    Path(place.database).chmod(0o666)
    with pytest.raises(StateRefusedError):
        prepare(place)


# -------------------------------------------------------------------------- what tools see


def test_a_described_place_is_known(place: Place, state_dir: Path) -> None:
    prepare(place)
    assert list(known_places(state_dir)) == []
    describe(place)
    assert list(known_places(state_dir)) == [place]
    assert mode(place.about) == 0o600


def test_a_description_is_written_again_only_where_it_is_wrong(place: Place) -> None:
    prepare(place)
    describe(place)
    before = place.about.stat()
    describe(place)
    assert place.about.stat().st_ino == before.st_ino
    text = place.about.read_text()
    place.about.write_text("{")
    describe(place)
    assert place.about.read_text() == text


def test_all_places_are_known_explicit_databases_included(
    state_dir: Path, root_dir: Path, tmp_path: Path
) -> None:
    known = [
        *islice(places(state_dir, str(root_dir), None), 2),
        next(places(state_dir, str(root_dir), str(tmp_path / "mine.db"))),
    ]
    for place in known:
        prepare(place)
        describe(place)
    assert sorted(known_places(state_dir), key=repr) == sorted(known, key=repr)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", json.dumps({"machine": "another host", "root_dir": "/"})]
)
def test_what_is_another_hosts_or_not_readable_is_passed_over(
    place: Place, state_dir: Path, text: str
) -> None:
    prepare(place)
    place.about.write_text(text)
    assert list(known_places(state_dir)) == []


def test_without_a_state_folder_no_place_is_known(state_dir: Path) -> None:
    assert list(known_places(state_dir)) == []


# -------------------------------------------------------------------------- a place that is over


def test_a_discarded_place_leaves_nothing(place: Place, state_dir: Path) -> None:
    prepare(place)
    describe(place)
    for name in (place.database, f"{place.database}-wal", place.log_file("k")):
        Path(name).touch()
    discard(place)
    discard(place)
    assert list(state_dir.iterdir()) == []


def test_a_discarded_explicit_database_leaves_its_neighbours(
    state_dir: Path, root_dir: Path, tmp_path: Path
) -> None:
    first, second = islice(places(state_dir, str(root_dir), str(tmp_path / "mine.db")), 2)
    for place in (first, second):
        prepare(place)
        Path(place.database).touch()
    discard(second)
    assert Path(first.database).exists()
    assert first.folder.exists()
    assert not Path(second.database).exists()
    assert not second.folder.exists()
