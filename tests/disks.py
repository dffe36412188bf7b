"""File systems that are small, full or read-only, where the tests may mount some."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

from conftest import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def mount(*options: str) -> None:
    """Mount something; skip the test where that is not allowed."""
    try:
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    except OSError as error:
        require(False, f"mount ({error})")
    else:
        require(done.returncode == 0, f"mount ({done.stderr.strip()})")


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount something on a folder; it is let go afterwards, whatever still uses it."""
    mount(*options, str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def small_disk(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Have a folder on a file system of half a megabyte."""
    return mounted(folder, "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs")


def fill(folder: Path) -> Path:
    """Leave no byte free in a folder's file system; return the file that takes it all."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(512)):
            pass
    return filler
