"""Ownership of servers: which of those that files tell of are this user's own processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psutil

from ..host import POSIX

_LISTEN = "0A"
"""A socket's state, as ``/proc/net/tcp`` has it."""

_CLOCK_TOLERANCE = 2.0
"""Seconds: file systems and the process table have clocks of different grain."""


class Ownership(Enum):
    """What is known of the server that a file tells of."""

    OWN = "own"
    """It is this user's, and listens where the file says: it may have the token."""
    SILENT = "silent"
    """Its process is this user's, and nobody listens there."""
    FOREIGN = "foreign"
    """It is gone, or somebody else listens there."""


def ownership(pid: int, url: str, written: float) -> Ownership:
    """Return whose the server is that a file tells of.

    The file of a server that was killed stays: its pid is given to another process, and its port
    to another user's.

    :param url: where it listens: the URL of a port, or of a unix socket
    :param written: when the file was written, in seconds since the epoch
    """
    try:
        process = psutil.Process(pid)
        if POSIX and process.uids().effective != os.geteuid():
            return Ownership.FOREIGN
        parts = urlsplit(url)
        if parts.scheme == "http+unix":
            return _of_socket(unquote(parts.netloc))
        port = parts.port or (443 if parts.scheme == "https" else 80)
        users = [*_users_listening(port)]
        has_port = port in _ports(process)
        if any(user != os.geteuid() for user in users):
            return Ownership.FOREIGN
        # The clock may have been set since: who has the port is the server in any case.
        if has_port or (users and process.create_time() <= written + _CLOCK_TOLERANCE):
            return Ownership.OWN
        return Ownership.FOREIGN if users else Ownership.SILENT
    except (psutil.Error, OSError, ValueError):
        return Ownership.FOREIGN


def _of_socket(path: str) -> Ownership:
    try:
        owner = os.stat(path).st_uid
    except FileNotFoundError:
        return Ownership.SILENT
    return Ownership.OWN if owner == os.geteuid() else Ownership.FOREIGN


def _ports(process: psutil.Process) -> set[int]:
    """Return the TCP ports that a process listens on."""
    # psutil 6 has given it another name.
    connections = getattr(process, "net_connections", None) or process.connections
    try:
        found = connections("tcp")
    except psutil.AccessDenied:
        return set()
    return {c.laddr.port for c in found if c.status == psutil.CONN_LISTEN}


def _users_listening(port: int) -> Iterator[int]:
    """Yield the users whose sockets listen on a TCP port, at any address; none without /proc."""
    for name in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield int(fields[7])
