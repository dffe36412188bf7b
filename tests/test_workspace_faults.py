"""Whatever state is found, a server starts; what it must not use, it leaves alone."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from stores import digests
from workspaces import KERNEL, OTHER, SESSION, Opens, add, messages, place_of, spoil

from jupyter_sessions_ext.errors import StoreUnavailableError
from jupyter_sessions_ext.folder import Place
from jupyter_sessions_ext.lease import Lease
from jupyter_sessions_ext.models import Change
from jupyter_sessions_ext.storage.sqlite import SQLiteStore


@pytest.fixture
def kept(open_workspace: Opens) -> Place:
    """Return a place where an earlier server has kept a session and a kernel."""
    opened = open_workspace()
    opened.commit_now(Change(sessions=(SESSION,), kernels=(KERNEL,)))
    place = place_of(opened)
    opened.close()
    return place


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("newer", "schema version"),
        ("open to all", "others may write"),
        ("a link", "symbolic link"),
    ],
)
@pytest.mark.asyncio
async def test_a_state_that_must_not_be_used_is_left_and_the_server_works_without(
    open_workspace: Opens, kept: Place, caplog: pytest.LogCaptureFixture, found: str, reason: str
) -> None:
    spoil(kept, found)
    before = digests(open_workspace.state_dir)
    opened = open_workspace()
    assert (opened.place, opened.keeps_kernels) == (None, False)
    assert opened.registry.sessions == {}
    [message] = messages(caplog, logging.ERROR)
    assert "keeps nothing in this run" in message
    assert reason in message
    await opened.transact(add(OTHER))
    assert opened.registry.sessions == {"t": OTHER}
    opened.close()
    after = digests(open_workspace.state_dir)
    assert {k: after[k] for k in before} == before


@pytest.mark.asyncio
async def test_where_state_cannot_be_written_every_change_is_refused(
    open_workspace: Opens, kept: Place, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(kept, "a folder")
    before = digests(open_workspace.state_dir)
    opened = open_workspace()
    assert (opened.place, opened.keeps_kernels) == (None, False)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=r"sessions\.sqlite.*restart the server"):
            await opened.transact(add(OTHER))
    assert opened.registry.sessions == {}
    assert len(messages(caplog, logging.ERROR)) == 1
    opened.close()
    after = digests(open_workspace.state_dir)
    assert {k: after[k] for k in before} == before


def test_a_state_that_must_not_be_used_is_not_held(open_workspace: Opens, kept: Place) -> None:
    spoil(kept, "newer")
    open_workspace()
    lease = Lease.take(kept.folder)
    assert lease is not None
    lease.release()


@pytest.mark.parametrize("record", ["no JSON", '{"pid": 1}', "[1]"])
@pytest.mark.asyncio
async def test_a_record_that_cannot_be_read_keeps_no_server_from_starting(
    open_workspace: Opens, kept: Place, caplog: pytest.LogCaptureFixture, record: str
) -> None:
    spoil(kept, record)
    opened = open_workspace()
    await opened.transact(add(OTHER))
    assert "t" in opened.registry.sessions
    assert messages(caplog, logging.ERROR) != []


def test_a_state_folder_that_cannot_be_made_keeps_no_server_from_starting(
    open_workspace: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    open_workspace.state_dir.touch()
    assert open_workspace().place is None
    [message] = messages(caplog, logging.ERROR)
    assert str(open_workspace.state_dir) in message


@pytest.mark.parametrize("garbage", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
@pytest.mark.asyncio
async def test_a_file_of_ours_that_is_corrupt_is_moved_aside_and_begun_anew(
    open_workspace: Opens, kept: Place, caplog: pytest.LogCaptureFixture, garbage: bytes
) -> None:
    corrupt(kept, garbage)
    opened = open_workspace()
    assert place_of(opened) == kept
    assert opened.lost
    assert opened.keeps_kernels
    [message] = messages(caplog, logging.ERROR)
    [aside] = kept.folder.glob("sessions.sqlite.corrupt-*")
    assert str(aside) in message
    assert same(aside, garbage)
    await opened.transact(add(OTHER))
    assert SQLiteStore(kept.database).open().sessions == (OTHER,)


def corrupt(place: Place, garbage: bytes) -> None:
    Path(place.database).write_bytes(garbage)


def same(file: Path, content: bytes) -> bool:
    return file.read_bytes() == content


def test_an_explicit_file_that_is_no_database_is_left_alone(
    open_workspace: Opens, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "thesis.txt"
    file.write_text("not a database, and dear to its user")
    opened = open_workspace(file)
    assert opened.place is None
    assert file.read_text() == "not a database, and dear to its user"
    assert list(tmp_path.glob("thesis*")) == [file]
    [message] = messages(caplog, logging.ERROR)
    assert "not a SQLite database" in message


@pytest.mark.parametrize("left", [None, b""], ids=["deleted", "emptied"])
def test_a_file_that_was_lost_is_begun_anew_and_kernels_are_looked_for(
    open_workspace: Opens, kept: Place, left: bytes | None
) -> None:
    Path(kept.database).unlink()
    if left is not None:
        Path(kept.database).write_bytes(left)
    opened = open_workspace()
    assert place_of(opened) == kept
    assert opened.registry.sessions == {}
    assert opened.lost


@pytest.mark.asyncio
async def test_a_deleted_file_is_known_as_lost_to_the_next_server(
    open_workspace: Opens,
) -> None:
    """Whatever the server that lost it tried to write: the next one looks for the kernels."""
    first = open_workspace()
    discard_database(place_of(first))
    with pytest.raises(StoreUnavailableError):
        await first.transact(add(SESSION))
    await first.stopped()
    first.close()
    assert open_workspace().lost


def discard_database(place: Place) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(place.database + suffix).unlink(missing_ok=True)


@pytest.mark.asyncio
async def test_a_closed_workspace_refuses_changes(open_workspace: Opens) -> None:
    opened = open_workspace()
    await opened.transact(add(SESSION))
    opened.close()
    assert opened.closing
    with pytest.raises(StoreUnavailableError, match="closed"):
        await opened.transact(add(OTHER))
