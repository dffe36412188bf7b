"""What commands write to: files that are whole and their user's alone, and what is no file."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest
from commands import keep, run
from conftest import require
from records import EVERYTHING
from workspaces import spoil

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Home


@pytest.fixture
def folder(home: Home) -> Path:
    """Return a folder to write to, of a home where something is kept."""
    keep(home, EVERYTHING)
    folder = home.path / "exports"
    folder.mkdir()
    return folder


def is_export(content: bytes) -> bool:
    return content.startswith(b'{"format":"jupyter_sessions_ext"') and content.endswith(b"\n")


def test_a_file_is_its_users_alone_also_one_that_replaces_another(home: Home, folder: Path) -> None:
    for is_there in (False, True):
        file = folder / f"{is_there}.ndjson"
        if is_there:
            file.write_text("before")
            file.chmod(0o666)
        assert run(home, "export", "-o", file).code == 0
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert is_export(file.read_bytes())


def test_files_beside_it_stay(home: Home, folder: Path) -> None:
    other = folder / "x.ndjson.part"
    other.write_text("mine")
    linked = folder / "y.ndjson.part"
    linked.symlink_to("x.ndjson.part")
    for name in ("x.ndjson", "y.ndjson"):
        assert run(home, "export", "-o", folder / name).code == 0
    assert other.read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("x.ndjson", "x.ndjson.part", "y.ndjson", "y.ndjson.part"),
    ]


@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_link_stays_and_what_it_names_is_replaced(
    home: Home, folder: Path, is_dangling: bool
) -> None:
    target, link = folder / "elsewhere" / "target", folder / "link"
    target.parent.mkdir()
    if not is_dangling:
        target.write_text("before")
    link.symlink_to("elsewhere/target")
    assert run(home, "export", "-o", link).code == 0
    assert link.is_symlink()
    assert is_export(target.read_bytes())


def test_a_device_is_written_to_and_stays(home: Home, folder: Path) -> None:
    device = folder / "a device"
    try:
        os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null
        device.write_bytes(b"")
    except PermissionError as error:
        require(False, f"mknod ({error})")
    link = folder / "link"
    link.symlink_to(device.name)
    for path in (device, link):
        assert run(home, "export", "-o", path).code == 0
        assert stat.S_ISCHR(device.stat().st_mode)
    assert link.is_symlink()
    assert len([*folder.iterdir()]) == 2


def test_a_pipe_is_written_to_and_stays(home: Home, folder: Path) -> None:
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert run(home, "export", "-o", pipe).code == 0
    reader.join(10)
    assert is_export(read[0])
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_an_open_file_is_written_to_by_its_name(home: Home, folder: Path) -> None:
    with (folder / "redirected").open("w+b") as file:
        assert run(home, "export", "-o", f"/dev/fd/{file.fileno()}").code == 0
        assert is_export((folder / "redirected").read_bytes())
        assert os.fstat(file.fileno()).st_nlink == 1


@pytest.mark.parametrize("what", ["a loop of links", "a folder", "nowhere"])
def test_what_cannot_be_written_is_told(home: Home, folder: Path, what: str) -> None:
    path = folder / "path"
    if what == "a loop of links":
        path.symlink_to("path")
    elif what == "a folder":
        path.mkdir()
    else:
        path = folder / "missing" / "path"
    before = sorted(folder.rglob("*"))
    done = run(home, "export", "-o", path)
    assert (done.code, f"{path} cannot be written" in done.err) == (1, True)
    assert sorted(folder.rglob("*")) == before


def test_a_file_stays_as_it_was_when_what_replaces_it_fails(home: Home, folder: Path) -> None:
    spoil(keep(home, EVERYTHING), "garbage")
    file = folder / "x.ndjson"
    file.write_text("before")
    assert run(home, "export", "-o", file).code == 1
    assert file.read_text() == "before"
    assert [*folder.iterdir()] == [file]
