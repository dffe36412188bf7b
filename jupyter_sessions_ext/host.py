"""The host and its processes: what makes a process provably the one that was recorded."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import struct
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil

from .models import ProcessIdentity

KERNEL_MARK = "JUPYTER_SESSIONS_KERNEL"
"""Environment variable of a durable kernel: ``<workspace key>:<kernel id>``."""

try:
    import fcntl

    POSIX = True
except ImportError:  # Windows: no sessions, process groups or signals that kernels could outlive
    POSIX = False

_FLOCK = {"linux": "hhqqi", "darwin": "qqihh"}
"""How ``struct flock`` is laid out: its members, in the order of each system."""

NAMES_LOCKERS = sys.platform in _FLOCK
"""Whether :func:`locker` can be asked on this system."""

_PROC = sys.platform == "linux" and os.path.isdir("/proc/self")


@functools.cache
def machine_id() -> str:
    """Return what tells this host from others that may share its home folders.

    Not its name, which may change with the network.
    """
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            text = Path(path).read_text("ascii", "replace").strip()
            if text:
                return text
    node = uuid.getnode()
    is_random = bool(node >> 40 & 1)
    return platform.node() or "localhost" if is_random else f"{node:012x}"


@functools.cache
def boot_id() -> str:
    """Return what changes when the host boots."""
    if _PROC:
        with contextlib.suppress(OSError):
            return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return str(int(psutil.boot_time()))


@functools.cache
def pid_namespace() -> str:
    """Return what changes when the pids that we see are those of another container."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of a process, or ``None`` when it is gone, a zombie included."""
    started = _started(pid)
    if started is None:
        return None
    return ProcessIdentity(
        pid=pid,
        started=started,
        boot=boot_id(),
        namespace=pid_namespace(),
        machine=machine_id(),
    )


def is_running(identity: ProcessIdentity) -> bool:
    """Tell whether exactly that process still runs here."""
    return (
        identity.boot == boot_id()
        and identity.namespace == pid_namespace()
        and _started(identity.pid) == identity.started
    )


def started_before(identity: ProcessIdentity, moment: float) -> bool:
    """Tell whether a process that runs was started before a moment, in seconds since the epoch."""
    try:
        return psutil.Process(identity.pid).create_time() < moment
    except psutil.Error:
        return True


def _started(pid: int) -> float | None:
    """Return when a process started, or ``None``: in clock ticks since boot, else in seconds.

    Ticks do not move when the clock is set, as :meth:`psutil.Process.create_time` does.
    """
    if _PROC:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in (b"Z", b"X") else float(fields[19])
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty when it cannot be read.

    A process that renames itself may overwrite it: a kernel's must still carry its mark.
    """
    try:
        return psutil.Process(pid).environ()
    except (psutil.Error, OSError, ValueError):
        return {}


def locker(descriptor: int, start: int, length: int) -> int | None:
    """Return the pid that has a POSIX lock on some bytes of a file; ``None``: nobody has.

    The pid is 0 where it is not of this system's, or of another container. To be asked only where
    the system can tell: see :data:`NAMES_LOCKERS`.
    """
    layout = _FLOCK[sys.platform]
    if sys.platform == "darwin":
        asked = struct.pack(layout, start, length, 0, fcntl.F_WRLCK, os.SEEK_SET)
        _, _, pid, kind, _ = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    else:
        asked = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        kind, _, _, _, pid = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else max(pid, 0)


OWNS_LOCKS = POSIX and hasattr(fcntl, "F_OFD_SETLK")
"""Whether a file can have locks of its descriptor, as on Linux: see :func:`lock`."""


def lock(descriptor: int, start: int, length: int, *, is_shared: bool = False) -> bool:
    """Lock some bytes of a file, unless another one has them; tell whether they are locked.

    The lock is its open file description's: unlike a POSIX lock, which belongs to the process, it
    stays when something else in the process opens the file and closes it. It ends when the
    descriptor and all its duplicates are closed, in forked children too.

    :raises OSError: the file system has no locks
    """
    kind = fcntl.F_RDLCK if is_shared else fcntl.F_WRLCK
    try:
        _set_lock(descriptor, kind, start, length)
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_locked(descriptor: int, start: int, length: int) -> bool:
    """Tell whether another open file has locked some bytes of this one.

    :raises OSError: the file system has no locks
    """
    asked = struct.pack(_FLOCK[sys.platform], fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    kind: int = struct.unpack(_FLOCK[sys.platform], answer)[0]
    return kind != fcntl.F_UNLCK


def unlock(descriptor: int, start: int, length: int) -> None:
    """Give back what :func:`lock` has locked."""
    _set_lock(descriptor, fcntl.F_UNLCK, start, length)


def _set_lock(descriptor: int, kind: int, start: int, length: int) -> None:
    asked = struct.pack(_FLOCK[sys.platform], kind, os.SEEK_SET, start, length, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, asked)


def find_processes(connection_files: Mapping[str, str]) -> dict[str, int]:
    """Look kernels up in the process table.

    A process counts as a kernel only if it has the kernel's connection file on its command line,
    as a console that is connected to it has too, and the kernel's mark in its environment, as
    whatever the kernel started has too.

    :param connection_files: kernel ids by the real path of their connection file
    :returns: the pid of each kernel that was found; of several, the one that started first
    """
    found: dict[str, tuple[float, int]] = {}
    for process in _own_session_leaders():
        with contextlib.suppress(psutil.Error, OSError):
            for part in process.cmdline():
                kernel_id = connection_files.get(part)
                marked = environment(process.pid).get(KERNEL_MARK, "") if kernel_id else ""
                if kernel_id and marked.endswith(f":{kernel_id}"):
                    candidate = (process.create_time(), process.pid)
                    found[kernel_id] = min(candidate, found.get(kernel_id, candidate))
                    break
    return {kernel_id: pid for kernel_id, (_, pid) in found.items()}


def find_marked(mark: str) -> Iterator[tuple[str, int, str]]:
    """Yield (kernel id, pid, connection file) of the kernels that carry a workspace's mark.

    It is how kernels are found whose records are lost.
    """
    for process in _own_session_leaders():
        key, _, kernel_id = environment(process.pid).get(KERNEL_MARK, "").partition(":")
        if key != mark:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            for part in process.cmdline():
                # What a kernel starts inherits the mark, but not the connection file.
                if os.path.basename(part) == f"kernel-{kernel_id}.json" and os.path.isfile(part):
                    yield kernel_id, process.pid, part
                    break


def _own_session_leaders() -> Iterable[psutil.Process]:
    """Yield this user's session leaders, as kernels are: not the processes they forked."""
    for process in psutil.process_iter() if POSIX else ():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == process.pid and process.uids().effective == os.geteuid():
                yield process


_NETWORK_FILE_SYSTEMS = (
    "nfs", "cifs", "smb", "afs", "9p", "ceph", "lustre", "gpfs", "glusterfs", "beegfs",
    "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "davfs", "ncpfs", "virtiofs",
)  # fmt: skip


def is_on_network(path: Path) -> bool:
    """Tell whether a path is on a network file system, where SQLite's WAL must not be used."""
    resolved = str(path.resolve())
    best = ("", "")
    for partition in psutil.disk_partitions(all=True):
        mount = partition.mountpoint
        inside = mount == "/" or resolved == mount or resolved.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best[0]):
            best = (mount, partition.fstype.lower())
    return best[1].startswith(_NETWORK_FILE_SYSTEMS)
