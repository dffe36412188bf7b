"""Keeps what kernels have written and sent from piling up: it outlives the server's interest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from tornado.ioloop import PeriodicCallback

from ..folder import Place
from ..host import environment
from ..keeper.log_file import shorten
from ..keeper.protocol import RINGS
from ..keeper.ring import folder_name
from ..models import KernelRecord
from ..workspace import Workspace
from .secrets import masked, secrets_of, without_rest

LOG_RETENTION = 7 * 24 * 3600
"""Seconds for which the log of a kernel that is gone is kept, and what it has sent."""

_INTERVAL = 60.0
_MARGIN = 64 << 10


class LogKeeper:
    """Looks after the log folder of a workspace, off the event loop, once a minute."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._timer: PeriodicCallback | None = None

    def start(self) -> None:
        """Begin, unless begun."""
        if self._timer is None and self._workspace.place is not None:
            self._timer = PeriodicCallback(self._look, _INTERVAL * 1000)
            self._timer.start()

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    async def _look(self) -> None:
        place = self._workspace.place
        if place is not None:
            # Before it is known which kernels there are: one may be started meanwhile.
            rings = await asyncio.to_thread(rings_in, place.keeper / RINGS)
            registry = self._workspace.registry
            known = {place.log_file(kernel_id).name for kernel_id in registry.kernels}
            await asyncio.to_thread(trim, place.folder / "logs", known)
            wanted = {s.kernel_id for s in registry.sessions.values() if s.kernel_id}
            await asyncio.to_thread(
                trim_rings,
                rings,
                {folder_name(kernel_id) for kernel_id in registry.kernels},
                {folder_name(kernel_id) for kernel_id in wanted},
                self._workspace.journal_total,
            )


def trim(folder: Path, known: set[str]) -> None:
    """Shorten long logs, and remove old ones of kernels that are gone.

    :param known: the names of the logs of kernels that are not
    """
    for log in folder.glob("kernel-*.log"):
        with contextlib.suppress(OSError):
            status = log.stat()
            shorten(log)
            if log.name not in known and time.time() - status.st_mtime > LOG_RETENTION:
                log.unlink()


def rings_in(folder: Path) -> list[Path]:
    """Return the folders with what kernels have sent."""
    return [*folder.glob("kernel-*")]


def trim_rings(rings: Sequence[Path], kept: set[str], wanted: set[str], total: int) -> None:
    """Remove what kernels have sent that are gone: when no session is left, or after some days.

    Sooner, and the oldest first, if it is too much together with what the others have sent.

    :param kept: the names of the folders of kernels that are not gone
    :param wanted: those of kernels of sessions, dormant ones included
    :param total: bytes
    """
    gone = []
    for ring in rings:
        with contextlib.suppress(OSError):
            files = [file.stat() for file in ring.iterdir()]
            size = sum(file.st_size for file in files)
            total -= size
            if ring.name not in kept:
                latest = max((file.st_mtime for file in files), default=0.0)
                gone.append((latest, size, ring))
    for latest, size, ring in sorted(gone):
        is_old = time.time() - latest > LOG_RETENTION
        if is_old or ring.name not in wanted or total < 0:
            shutil.rmtree(ring, ignore_errors=True)
            total += size


def end_of_log(
    place: Place,
    kernel_id: str,
    record: KernelRecord | None,
    size: int,
    *,
    kernel_name: str | None,
    tokens: Iterable[str] = (),
) -> str:
    """Return the end of what a kernel has written, without its secrets and those of this process.

    :param record: the kernel's, if it is still there
    :param kernel_name: its kernelspec's name
    :param tokens: of the server
    :raises OSError: it cannot be read
    """
    secrets = [*tokens, *secrets_of({}, os.environ)]
    if record is not None:
        own = environment(record.process.pid) if record.process else {}
        secrets += secrets_of(record.connection, own)
    if kernel_name is not None:  # it may be all that is left of a kernel's own environment
        secrets += secrets_of({}, _environment_of_spec(kernel_name))
    return read_end(place.log_file(kernel_id), size, secrets)


def _environment_of_spec(kernel_name: str) -> dict[str, str]:
    """Return the variables that a kernelspec sets; none when it cannot be read."""
    try:
        environment: dict[str, str] = KernelSpecManager().get_kernel_spec(kernel_name).env
    except Exception:  # whatever is wrong with it is not the log's matter
        return {}
    return environment


def read_end(log: Path, size: int, secrets: Iterable[str]) -> str:
    """Return the end of a log, of so many bytes at most, from the beginning of a line.

    :param secrets: what is masked in it
    :raises OSError: it cannot be read
    """
    secrets = [*secrets]
    with open(log, "rb") as file:
        # More than is asked for: a secret must not be cut in two before it is found.
        start = max(file.seek(0, os.SEEK_END) - size - _MARGIN, 0)
        file.seek(start)
        text = masked(file.read().decode(errors="replace"), secrets)
    if start:  # masks are short: it may be that the cut comes into what is asked for
        text = without_rest(text, secrets)
    end = text.encode()
    if len(end) <= size and not start:
        return text
    is_at_start = end[-size - 1 : -size] == b"\n"
    end = end[-size:]
    _, found, rest = end.partition(b"\n")
    # Not "replace": a character that is cut would become one of three bytes.
    return (end if is_at_start or not found else rest).decode(errors="ignore")
