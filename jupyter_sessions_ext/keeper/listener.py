"""The socket on which a keeper is there for servers of its own user."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from .kernels import log
from .link import user_of
from .loop import Loop
from .protocol import SOCKET


class Listener:
    """A unix socket, which is made anew at SIGUSR1: who finds none sends that.

    :param folder: in which it is
    :param accepted: is given each connection
    """

    def __init__(
        self, folder: Path, loop: Loop, accepted: Callable[[socket.socket], object]
    ) -> None:
        self._folder = folder
        self._loop = loop
        self._accepted = accepted
        self._socket: socket.socket | None = None

    def listen(self) -> None:
        """Begin."""
        self._bind()
        ours, theirs = self._wakeup = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        signal.signal(signal.SIGUSR1, lambda *_: None)

        def told(_: int) -> None:
            ours.recv(100)
            log("the socket is made anew")
            self._bind()

        self._loop.watch(ours, told)

    def _bind(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket)
            self._socket.close()
        listener = self._socket = socket.socket(socket.AF_UNIX)
        # By a relative path, for an absolute one may be too long.
        os.chdir(self._folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET)
        listener.bind(SOCKET)
        os.chmod(SOCKET, 0o600)
        listener.listen(64)
        listener.setblocking(False)
        self._loop.watch(listener, lambda _: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            if user_of(connection) == os.geteuid():
                self._accepted(connection)
            else:
                log("another user was refused")
                connection.close()

    def close(self) -> None:
        """Be there no more."""
        with contextlib.suppress(OSError):
            os.unlink(SOCKET)
