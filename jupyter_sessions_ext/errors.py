"""What can go wrong, as types. Each error carries the id or the file that it is about."""

from __future__ import annotations


class SessionsError(Exception):
    """The root of this package's errors."""


class StoreUnavailableError(SessionsError, OSError):
    """The store could not be read or written; nothing was changed.

    :ivar location: the database's path
    """

    advice = "Free space or mend the file's permissions, then try again"

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(
            f"The session state in {location} cannot be used ({reason}). Nothing was changed. "
            f"{self.advice}"
        )
        self.location = location
        self.reason = reason


class StoreCorruptError(StoreUnavailableError):
    """The file is not a readable database."""

    advice = "Restart the server: it moves the file aside and begins a new one"


class StoreGoneError(StoreUnavailableError):
    """The file was deleted, or replaced by another, while it was open."""

    advice = "Restart the server: it begins a new one, with the kernels that run"

    def __init__(self, location: str) -> None:
        super().__init__(location, "the file was deleted or replaced")


class StateUnusableError(StoreUnavailableError):
    """The state cannot be written at all, as on a read-only file system; so it was at start."""

    advice = (
        "Mend that and restart the server, or start it with "
        "--SessionManager.database_filepath=:memory: to keep nothing"
    )


class ValueRefusedError(SessionsError, ValueError):
    """A value that no database can hold, such as a lone surrogate; nothing was changed."""


class StateRefusedError(SessionsError, PermissionError):
    """The state folder or file must not be used as it is.

    :ivar location: the path that is refused
    """

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(f"{location} is not used: {reason}")
        self.location = location
        self.reason = reason


class SchemaTooNewError(SessionsError, ValueError):
    """The database was written by a newer version of this package; it is left alone.

    :ivar location: the database's path
    :ivar found: its schema version
    """

    def __init__(self, location: str, found: int, known: int) -> None:
        super().__init__(
            f"{location} has schema version {found}, this version of jupyter_sessions_ext knows "
            f"{known}: upgrade jupyter_sessions_ext, or move the file away to begin anew"
        )
        self.location = location
        self.found = found


class IllegalTransitionError(SessionsError, RuntimeError):
    """A session was to change in a way that it cannot; nothing was changed.

    :ivar session_id: the session's id
    """

    def __init__(self, session_id: str, action: str, before: object, after: object) -> None:
        super().__init__(f"Session {session_id} cannot go from {before} to {after} by {action!r}")
        self.session_id = session_id


class AdoptionError(SessionsError, RuntimeError):
    """A kernel that runs could not be adopted; it is left running.

    :ivar kernel_id: the kernel's id
    """

    def __init__(self, kernel_id: str, reason: str) -> None:
        super().__init__(f"Kernel {kernel_id} runs but cannot be adopted: {reason}")
        self.kernel_id = kernel_id


class KernelStartError(SessionsError, RuntimeError):
    """A kernel could not be started; nothing was changed.

    :ivar kernel_name: the kernelspec's name
    """

    def __init__(self, kernel_name: str, reason: str) -> None:
        super().__init__(f"The '{kernel_name}' kernel could not be started: {reason!r}")
        self.kernel_name = kernel_name


class KernelGoneError(SessionsError, LookupError):
    """A kernel that was to be adopted does not run any more.

    :ivar kernel_id: the kernel's id
    """

    def __init__(self, kernel_id: str, reason: str) -> None:
        super().__init__(f"Kernel {kernel_id} is gone: {reason}")
        self.kernel_id = kernel_id


class KeeperError(SessionsError):
    """The keeper refused something, or is not there."""


class KeeperGoneError(KeeperError):
    """The keeper has just ended; another one is started."""


class KeeperVersionError(KeeperError):
    """The keeper that this server starts is of another version: it can be used by no call."""


class NoKeeperError(KeeperError):
    """There is no keeper for some time, or until the server is restarted; the log says why."""
