"""What is a keeper's is taken over, before a server's loop runs: its port, or all that it has."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..folder import read_object
from ..host import NAMES_LOCKERS, locker
from .protocol import (
    CLIENTS,
    LOCK,
    RINGS,
    SOCKET,
    Kind,
    ProtocolError,
    Unpacker,
    ended_file,
    namespaces,
    pack_json,
    receive,
)

_TIMEOUT = 5.0
_RETRY_INTERVAL = 0.02
_LONGEST_PATH = 100
"""Bytes; macOS allows 103 in a socket's path, Linux 107."""


def connect(folder: Path, timeout: float) -> socket.socket:
    """Return a connection with the keeper of a folder.

    :raises OSError: there is none
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        path = os.fsencode(folder / SOCKET)
        if len(path) <= _LONGEST_PATH:
            connection.connect(path)
        else:
            _connect_below_proc(connection, folder)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_below_proc(connection: socket.socket, folder: Path) -> None:
    """Connect where the path is too long for a socket's: below /proc it is short.

    :raises OSError: it cannot be done, as on other systems than Linux
    """
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{SOCKET}")
    finally:
        os.close(directory)


def take_port(folder: Path, address: tuple[str, int]) -> list[socket.socket]:
    """Return the listening sockets of an address; none, if the keeper does not hold them.

    A keeper that holds another address gives it up: this server is where it was told to be.
    """
    try:
        return _ask(folder, "take_port", address)
    except (OSError, ProtocolError):
        # One that does not answer, or ends, must not have the port either.
        with contextlib.suppress(OSError):
            deadline = time.monotonic() + _TIMEOUT
            while signal_holder(folder, signal.SIGKILL) and time.monotonic() < deadline:
                time.sleep(_RETRY_INTERVAL)
        return []


def free_port(folders: Iterable[Path], address: tuple[str, int]) -> None:
    """Have the keepers of other folders give an address up."""
    for folder in folders:
        with contextlib.suppress(OSError, ProtocolError):
            _ask(folder, "give_up_port", address)


def status(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's keeper tells of itself; None: there is none.

    :raises TimeoutError: it does not answer
    """
    try:
        with connect(folder, _TIMEOUT) as keeper:
            return _call(keeper, "status")[0]
    except TimeoutError:
        raise
    except (OSError, ProtocolError):
        return None


def _ask(folder: Path, what: str, address: tuple[str, int]) -> list[socket.socket]:
    """Ask a keeper about an address, and return the sockets that come with the answer.

    :raises OSError: it does not answer
    """
    with _connect_or_call(folder) as keeper:
        host, port = address
        return [socket.socket(fileno=file) for file in _call(keeper, what, host=host, port=port)[1]]


def _call(keeper: socket.socket, what: str, **more: Any) -> tuple[dict[str, Any], list[int]]:
    """Return what a keeper answers, and the descriptors that come with that.

    :raises OSError: it does not answer
    """
    keeper.sendall(pack_json(Kind.CALL, 1, op=what, **more))
    unpacker, files = Unpacker(), list[int]()
    while True:
        data, more_files = receive(keeper, 1 << 16)
        files += more_files
        if not data:
            raise ConnectionResetError("it has ended")
        for packet in unpacker.feed(data):
            return packet.body, files


def _connect_or_call(folder: Path) -> socket.socket:
    """Return a connection with a keeper, which is told to make its socket anew if that is gone.

    :raises OSError: there is none, or it does not
    """
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            return connect(folder, _TIMEOUT)
        if not signal_holder(folder, signal.SIGUSR1):
            break
        time.sleep(_RETRY_INTERVAL)
    raise ConnectionRefusedError(f"no keeper listens in {folder}")


def take_all(folder: Path, target: Path) -> None:
    """End the keeper of another folder, if it has one, and move what it has kept."""
    try:
        with connect(folder, _TIMEOUT) as connection:
            connection.sendall(pack_json(Kind.CALL, 1, op="retire"))
            while connection.recv(1 << 16):
                pass
    except OSError:
        pass
    with contextlib.suppress(OSError):
        signal_holder(folder, signal.SIGKILL)
    for name in (RINGS, CLIENTS):
        kept = target / name
        with contextlib.suppress(OSError):
            kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (folder / name).glob("*"):
            with contextlib.suppress(OSError):
                path.rename(kept / path.name)


def take_reasons(folder: Path, target: Path) -> None:
    """Move why kernels were ended that another folder's keeper had."""
    source, kept = ended_file(folder), ended_file(target)
    reasons = read_object(source)
    if not reasons:
        return
    with contextlib.suppress(OSError):
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept.write_text(json.dumps({**read_object(kept), **reasons}))
        source.unlink()


def is_elsewhere(folder: Path) -> bool:
    """Tell whether a folder's keeper runs in another container, or in another network.

    Its kernels do, too: from here they cannot be seen, or not be reached.
    """
    try:
        pid = _holder(folder)
    except OSError:
        return False
    if pid is None:
        return False
    said = read_object(folder / LOCK)
    if pid and said.get("pid") != pid:
        return False  # it is of an older version, which tells nothing, and is seen here
    return bool(said.get("namespaces") != namespaces())


def signal_holder(folder: Path, number: int) -> bool:
    """Signal a folder's keeper: who has the lock is it. Tell whether there is one.

    :raises OSError: it cannot be told, or done
    """
    pid = _holder(folder)
    if pid:
        os.kill(pid, number)
    return bool(pid)


def _holder(folder: Path) -> int | None:
    """Return the pid of a folder's keeper, 0 if it is not of this system; None: there is none.

    :raises OSError: it cannot be told
    """
    if NAMES_LOCKERS:
        with contextlib.suppress(FileNotFoundError), open(folder / LOCK, "rb") as file:
            return locker(file.fileno(), 0, 1)
    return None
