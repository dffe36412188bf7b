"""A kernel process that is not our child, behind the interface of :class:`subprocess.Popen`."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from ..host import is_running
from ..models import ProcessIdentity

_POLL_INTERVAL = 0.02


class AdoptedProcess:
    """What :class:`~jupyter_client.provisioning.LocalProvisioner` asks of a process.

    It answers for exactly the process that was recorded: a pid that was used again counts as
    ended and is never signalled. The exit code of a process that is not our child cannot be
    known; it reads -1.
    """

    stdin = stdout = stderr = None

    def __init__(self, identity: ProcessIdentity) -> None:
        self.pid = identity.pid
        self.returncode: int | None = None
        self._identity = identity

    def poll(self) -> int | None:
        """Return ``None`` while it runs, else -1."""
        if self.returncode is None and not is_running(self._identity):
            self.returncode = -1
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, for at most ``timeout`` seconds.

        :raises subprocess.TimeoutExpired: it still runs
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(f"kernel process {self.pid}", timeout or 0.0)
            time.sleep(_POLL_INTERVAL)
        return -1

    def send_signal(self, signum: int) -> None:
        """Signal it, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def signal_group(identity: ProcessIdentity, signum: int) -> bool:
    """Signal a kernel and what it started; return whether it still ran.

    A kernel leads its process group, and while the leader lives the group's id is its own.
    """
    if not is_running(identity):
        return False
    try:
        if os.getpgid(identity.pid) == identity.pid:
            os.killpg(identity.pid, signum)
        else:
            os.kill(identity.pid, signum)
    except ProcessLookupError:
        return False
    return True
