"""A kernel's process, as the keeper must know it: when it ends, and that nothing else is ended."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

from .loop import Loop, Timer

_POLL_INTERVAL = 2.0
"""Seconds between looks at a process where the system does not tell of its end."""

_STEPS = ((5.0, signal.SIGTERM), (2.0, signal.SIGKILL))
"""Seconds that a kernel has after it was asked to end, and how it is told then."""


class KernelProcess:
    """A process that was identified when it was made known.

    :param ended: is called when it has ended
    :raises ProcessLookupError: there is no such process any more
    """

    def __init__(
        self, loop: Loop, pid: int, started: float | None, ended: Callable[[], object]
    ) -> None:
        self._loop = loop
        self.pid = pid
        self._ended = ended
        self._timer: Timer | None = None
        self._telling: Timer | None = None
        self._file: int | None = None
        self.has_ended = False
        if hasattr(os, "pidfd_open"):
            try:
                self._file = os.pidfd_open(pid)
            except ProcessLookupError:
                raise
            except OSError:  # a sandbox that does not have it
                self._file = None
        # After it was opened: from then on it is that process, whatever becomes of its number.
        try:
            if started is not None and _started(pid) not in (started, None):
                raise ProcessLookupError(pid)
        except ProcessLookupError:
            self.close()
            raise
        if self._file is not None:
            loop.watch(self._file, lambda _: self._end())
        else:
            self._poll()

    def _poll(self) -> None:
        try:
            os.kill(self.pid, 0)
            _started(self.pid)
        except ProcessLookupError:
            self._end()
            return
        except PermissionError:
            pass  # it is there, and another user's
        self._timer = self._loop.call_later(_POLL_INTERVAL, self._poll)

    def _end(self) -> None:
        self.has_ended = True
        self.close()
        self._ended()

    def end(self) -> None:
        """End it, with what it has started: soon, if it does not end by itself."""
        self._tell(0)

    def _tell(self, step: int) -> None:
        if step < len(_STEPS):
            seconds, number = _STEPS[step]
            self._telling = self._loop.call_later(seconds, lambda: self._signal(number, step))

    def _signal(self, number: int, step: int) -> None:
        if not self.has_ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # While its leader has not ended a group's number is its own.
                if os.getpgid(self.pid) == self.pid:
                    os.killpg(self.pid, number)
                else:
                    os.kill(self.pid, number)
            self._tell(step + 1)

    def close(self) -> None:
        """Let go of it."""
        for timer in (self._timer, self._telling):
            if timer is not None:
                timer.cancel()
        if self._file is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._loop.forget(self._file)
            os.close(self._file)
            self._file = None


def _started(pid: int) -> float | None:
    """Return when a process started, in clock ticks since boot; None: that cannot be told.

    :raises ProcessLookupError: it has ended, and may be a zombie
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        if fields[0] in (b"Z", b"X"):
            raise ProcessLookupError(pid)
        return float(fields[19])
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            raise ProcessLookupError(pid) from None
        return None


def identity_of(process: dict[str, Any] | None) -> tuple[int, float | None] | None:
    """Read what a server says of a process: ``pid`` and ``started``."""
    return None if process is None else (int(process["pid"]), process.get("started"))
