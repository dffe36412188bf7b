"""The state folder: whose it is, what it lies on, and what is in it."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

from ...errors import KeeperError, SchemaTooNewError, SessionsError, StoreCorruptError
from ...folder import Fault, Place, faults, known_places, places
from ...host import POSIX, find_marked, is_on_network, machine_id
from ...keeper.channel import Feed, ServerLink
from ...keeper.protocol import VERSION
from ...keeper.starter import Starter
from ...keeper.takeover import is_elsewhere, status
from ...kernels.recovery import observe
from ...lease import Holder, Lease
from ...models import Snapshot
from ...storage.migrations import LATEST
from ...workspace import store_of
from ..servers import Server
from ..units import size
from .findings import Finding, ok, problem, warning

START_TIMEOUT = 10.0
"""Seconds in which a keeper that is started must answer, and then end."""

_LITTLE, _TOO_LITTLE = 200_000_000, 5_000_000
"""Bytes that are free on a disk."""

_LOOKS, _LOOK_INTERVAL = 20, 0.1
"""How often it is looked for a keeper, and seconds in between."""


def folder(state_dir: Path) -> Iterator[Finding]:
    """Tell whether the state folder is its user's alone, and can be used."""
    name, subject = "state-folder", str(state_dir)
    if not state_dir.exists():
        parent = next(p for p in state_dir.parents if p.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield ok(name, f"{state_dir} is not there yet: the first server makes it")
        else:
            yield _cannot(name, f"{state_dir} cannot be made: {parent} is not yours to write to")
        return
    if not state_dir.is_dir():
        yield _cannot(name, f"{state_dir} is no folder")
    elif not os.access(state_dir, os.R_OK | os.W_OK | os.X_OK):
        yield _cannot(name, f"{state_dir} cannot be written to")
    else:
        yield ok(name, f"{state_dir} can be written to", subject=subject)


def _cannot(name: str, text: str) -> Finding:
    return problem(
        name,
        f"{text}: no change of a session can be stored",
        "mend its owner and its modes (chmod 0700), or set SessionsApp.state_dir",
    )


def modes(state_dir: Path) -> Iterator[Finding]:
    """Tell which parts of the state others may see, or write to."""
    known = [*known_places(state_dir)] or [next(places(state_dir, "", None))]
    found = {fault.path: fault for place in known for fault in faults(place)}
    yield from map(_of_fault, found.values())
    if not found:
        yield ok("modes", "what is kept is its user's alone")


def _of_fault(fault: Fault) -> Finding:
    text, subject = f"{fault.path}: {fault.reason}", str(fault.path)
    if fault.is_refused:
        advice = "until then servers keep nothing there: mend it, or remove it to begin anew"
        return problem("modes", text, advice, subject=subject)
    advice = f"chmod {'0700' if fault.path.is_dir() else '0600'} '{fault.path}'"
    return warning("modes", text, f"{advice}, as the next server does", subject=subject)


def file_systems(state_dir: Path) -> Iterator[Finding]:
    """Tell what the state lies on."""
    there = next(p for p in (state_dir, *state_dir.parents) if p.exists())
    databases = {Path(place.database).parent for place in known_places(state_dir)}
    seen = set()
    for path in (there, *sorted(databases)):
        if path.exists() and (device := path.stat().st_dev) not in seen:
            seen.add(device)
            yield _file_system(path)
            yield _space(path)


def _file_system(path: Path) -> Finding:
    name, subject = "file-system", str(path)
    if hasattr(os, "statvfs") and os.statvfs(path).f_flag & os.ST_RDONLY:
        return problem(
            name,
            f"{path} is on a read-only file system: changes of sessions are refused",
            "mount it for writing, or set SessionsApp.state_dir to a folder elsewhere",
            subject=subject,
        )
    if is_on_network(path):
        return warning(
            name,
            f"{path} is on a network file system: changes are slower, and the lease is as good as "
            "its locks are",
            "set SessionsApp.state_dir to a folder on a local disk, if that lasts as long",
            subject=subject,
        )
    return ok(name, f"{path} is on a local file system", subject=subject)


def _space(path: Path) -> Finding:
    name, subject = "disk-space", str(path)
    free = shutil.disk_usage(path).free
    text = f"{size(free)} are free at {path}"
    if free >= _LITTLE:
        return ok(name, text, subject=subject)
    advice = "free some: when it is full, changes of sessions are refused"
    return (problem if free < _TOO_LITTLE else warning)(name, text, advice, subject=subject)


def keeper_starts(state_dir: Path) -> Iterator[Finding]:
    """Tell whether a keeper can be started: one is, for a moment, in a folder of its own."""
    if not POSIX:
        return
    name = "keeper-start"
    folder = ""
    try:
        folder = tempfile.mkdtemp(prefix="check-", dir=state_dir if state_dir.is_dir() else None)
        pid = asyncio.run(_start_keeper(Path(folder)))
        yield ok(name, f"a keeper can be started (pid {pid}, which has ended)")
    except (KeeperError, OSError, asyncio.TimeoutError) as error:
        said = _end_of(Path(folder, "keeper.log"))
        reason = str(error) or f"it does not answer in {START_TIMEOUT:.0f} s"
        yield problem(
            name,
            f"no keeper can be started: {reason}{said and f' ({said})'}",
            "until then output is lost with the server, and nobody ends kernels that it left: "
            "have this Python import jupyter_sessions_ext, and see SessionsApp.state_dir",
        )
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


async def _start_keeper(folder: Path) -> int:
    """Start a keeper, end it, and return its pid.

    :raises KeeperError: it ended at once
    :raises OSError: it cannot be started
    :raises asyncio.TimeoutError: it does not answer
    """
    log = logging.getLogger(__name__)
    nothing: Mapping[int, Feed] = {}
    has_ended = asyncio.Event()

    def make_link(connection: socket.socket) -> ServerLink:
        return ServerLink(log, connection, nothing, lambda _: None, lambda *_: has_ended.set())

    hello = {"version": VERSION, "limit": 0, "total": 0, "orphan_timeout": 0}
    starter = Starter(folder, log, hello, make_link)
    try:
        link = await asyncio.wait_for(starter.open(), START_TIMEOUT)
        try:
            pid: int = (await link.call("status"))["pid"]
            await link.call("retire")
            await asyncio.wait_for(has_ended.wait(), START_TIMEOUT)
        finally:
            link.close()
    finally:
        starter.give_up()
    return pid


def _end_of(log: Path) -> str:
    """Return the last line of a log; empty, if there is none."""
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line), "")


# ---------------------------------------------------------------------- workspaces


def workspaces(state_dir: Path, servers: Iterable[Server]) -> Iterator[Finding]:
    """Tell of each workspace who has it, whether it can be read, and what of its kernels runs."""
    answering = {server.key: server for server in servers}
    known = [(place, *_holder(place)) for place in known_places(state_dir)]
    snapshots: list[Snapshot | None] = []
    for place, holder, finding in known:
        yield finding or _lease(place, holder, answering.get(place.key))
        found, snapshot = _database(place, unused=holder is None)
        snapshots.append(snapshot)
        yield found
    recorded = {k.kernel_id for snapshot in snapshots if snapshot for k in snapshot.kernels}
    for (place, holder, _), snapshot in zip(known, snapshots, strict=True):
        if is_elsewhere(place.keeper):
            yield warning(
                "lease",
                f"{place.root_dir}: its keeper runs in another container, with its kernels",
                "servers here have a workspace of their own; give each container its own "
                "SessionsApp.state_dir, or its own /etc/machine-id, to keep them apart",
                subject=str(place.folder),
            )
        elif snapshot is not None:
            yield from _kernels(place, snapshot, recorded, is_free=holder is None)


def _holder(place: Place) -> tuple[Holder | None, Finding | None]:
    """Return who has a lease, and why that cannot be told, if so."""
    try:
        return Lease.holder(place.folder), None
    except OSError as error:
        advice = "mend the owner and the modes of its file `lease`, or remove it"
        text, subject = f"{place.root_dir}: {error}", str(place.folder)
        return Holder(0), problem("lease", text, advice, subject=subject)


def _lease(place: Place, holder: Holder | None, server: Server | None) -> Finding:
    name, subject = "lease", str(place.folder)
    if holder is None:
        return ok(name, f"{place.root_dir}: no server uses it", subject=subject)
    if holder.is_weakened:
        return warning(
            name,
            f"{place.root_dir}: {holder} has it by one lock of two: something in that process has "
            "read the file `lease`",
            "move SessionsApp.state_dir out of what the file browser and extensions read, and "
            "restart the server; until then start no older version for this root folder",
            subject=subject,
        )
    if server is not None:
        return ok(name, f"{place.root_dir}: {server.url} has it ({holder})", subject=subject)
    if holder.command:
        text = f"{place.root_dir}: `jupyter sessions {holder.command}` has it ({holder})"
        return ok(name, text, subject=subject)
    return warning(
        name,
        f"{place.root_dir}: {holder} has it, and no server that answers says so",
        "if it is a server, see what is found of it; another command may be at work: try again",
        subject=subject,
    )


def readable(state_dir: Path, *, shows_hidden: bool) -> Iterator[Finding]:
    """Tell which workspaces' own servers show the state folder in their file browser.

    :param shows_hidden: whether they show hidden folders
    """
    for place in known_places(state_dir):
        root = Path(os.path.realpath(place.root_dir))
        folder = Path(os.path.realpath(place.folder))
        if not folder.is_relative_to(root):
            continue
        below = folder.relative_to(root).parts
        if shows_hidden or not any(part.startswith(".") for part in below):
            yield warning(
                "state-folder",
                f"{state_dir} can be read, and its files removed, in the file browser of "
                f"{place.root_dir}: kernels' keys are in it",
                "set SessionsApp.state_dir to a folder that is not below the root folder",
                subject=str(place.folder),
            )


def roots(state_dir: Path) -> Iterator[Finding]:
    """Tell which root folders are not there any more: a folder that was moved is another one."""
    name, missing = "root-folder", False
    for place in known_places(state_dir):
        if not os.path.exists(place.root_dir):
            missing = True
            yield warning(
                name,
                f"{place.root_dir} is not there: no server will find its sessions",
                "if it was moved, move it back, or bring them along: `jupyter sessions export "
                "--root-dir OLD`, then `import --root-dir NEW`; its kernels end by `stop --all`",
                subject=str(place.folder),
            )
    if not missing:
        yield ok(name, "each that has sessions is there")


def _database(place: Place, *, unused: bool) -> tuple[Finding, Snapshot | None]:
    name, subject = "database", place.database
    if not os.path.exists(place.database):
        text = f"{place.database} is gone: the next server begins a new one"
        advice = "put it back from a backup, if there is one"
        return warning(name, text, advice, subject=subject), None
    store = store_of(place)
    try:
        version, snapshot = store.peek_version(unused=unused), store.peek(unused=unused)
    except SchemaTooNewError as error:
        return problem(name, str(error), "upgrade jupyter_sessions_ext", subject=subject), None
    except StoreCorruptError as error:
        advice = "start a server: it moves the file aside and keeps the kernels that run"
        return problem(name, str(error), advice, subject=subject), None
    except (SessionsError, OSError) as error:
        advice = "mend its owner and its modes, or move it away to begin anew"
        return problem(name, str(error), advice, subject=subject), None
    text = f"{place.database} has version {version} and {len(snapshot.sessions)} sessions"
    if version < LATEST:
        advice = "the next server migrates it; so does `jupyter sessions migrate`"
        return warning(name, f"{text}; {LATEST} is the latest", advice, subject=subject), snapshot
    return ok(name, text, subject=subject), snapshot


def _keeper(place: Place, count: int, *, is_free: bool) -> Iterator[Finding]:
    """Tell whether the kernels that run are recorded, and what port is held for the next server."""
    name, subject = "keeper", str(place.keeper)
    try:
        said = status(place.keeper)
        for _ in range(_LOOKS):
            if said is not None or is_free or not count:
                break
            time.sleep(_LOOK_INTERVAL)  # its server may have started it just now
            said = status(place.keeper)
    except TimeoutError:
        text = f"{place.root_dir}: it does not answer"
        advice = "start a server, which replaces it" if is_free else "wait: the server replaces it"
        yield warning(name, text, advice, subject=subject)
        return
    if said is not None:
        kept = said["kernels"].values()
        text = f"{place.root_dir}: pid {said['pid']} has {size(sum(k['bytes'] for k in kept))}"
        if is_free and said["port"]:
            text += f", and holds port {said['port'][1]} for the next server"
        yield ok(name, text, subject=subject)
    elif count:
        yield warning(
            name,
            f"{place.root_dir}: there is none: what its kernels print is lost, and nobody ends "
            "them while no server runs",
            "start a server, or end them: `jupyter sessions stop --all`"
            if is_free
            else "see the server's log, which says why none can be started",
            subject=subject,
        )


def _kernels(
    place: Place, snapshot: Snapshot, recorded: Container[str], *, is_free: bool
) -> Iterator[Finding]:
    """Compare what is recorded with what runs.

    :param recorded: the kernels that any workspace has recorded
    """
    name = "kernels"
    running = observe(snapshot.kernels)
    yield ok(name, f"{place.root_dir}: {len(running)} run", subject=str(place.folder))
    yield from _keeper(place, len(running), is_free=is_free)
    for kernel_id, pid, _ in find_marked(place.key):
        if kernel_id not in recorded:
            yield warning(
                name,
                f"kernel {kernel_id} of {place.root_dir} runs (pid {pid}), but is not recorded: "
                "no server adopts it",
                f"end it: kill {pid}",
                subject=kernel_id,
            )
    gone = [
        kernel
        for kernel in snapshot.kernels
        if is_free
        and kernel.kernel_id not in running
        and kernel.machine == machine_id()
        and not kernel.is_elsewhere
    ]
    if gone:
        ids = ", ".join(kernel.kernel_id for kernel in gone[:5])
        yield warning(
            name,
            f"{place.root_dir}: {len(gone)} that were kept have ended ({ids})",
            "nothing: their sessions turn dormant when a server starts; opening them revives them",
            subject=str(place.folder),
        )
