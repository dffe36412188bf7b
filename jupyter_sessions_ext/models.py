"""The records that the registry shows and the store keeps, and the changes made to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Any


def now() -> datetime:
    """Return the current time, timezone-aware, in UTC: the package's one clock."""
    return datetime.now(timezone.utc)


class SessionState(str, Enum):
    """What a session is at the moment."""

    LIVE = "live"
    """Its kernel runs."""
    DORMANT = "dormant"
    """Its kernel is gone; opening the path revives it."""


class KernelPhase(str, Enum):
    """How far a kernel's process is, as last committed."""

    STARTING = "starting"
    """Reserved before the process exists."""
    RUNNING = "running"
    """Its process is known."""
    STOPPING = "stopping"
    """Asked to end: what is left of it after a crash is a remnant."""
    REPLACED = "replaced"
    """Its only session moved to another kernel: it ends unless a session takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A document path tied to a kernel. Ids are opaque strings."""

    session_id: str
    path: str | None = None
    name: str | None = None
    type: str | None = None
    kernel_id: str | None = None
    state: SessionState = SessionState.LIVE
    reason: str = ""
    kernel_name: str | None = None
    created_at: datetime = field(default_factory=now)

    def row(self) -> dict[str, Any]:
        """Return the five columns of jupyter_server's ``session`` table."""
        return {
            "session_id": self.session_id,
            "path": self.path,
            "name": self.name,
            "type": self.type,
            "kernel_id": self.kernel_id,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """What makes a process provably the one recorded, also after its pid was used again.

    ``started`` is in clock ticks since boot where ``/proc`` exists, else in seconds since the
    epoch; ``boot`` and ``namespace`` say in which run of which system it counts, ``machine``
    on which host.
    """

    pid: int
    started: float
    boot: str
    namespace: str
    machine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRecord:
    """A kernel that should run, with all that the next server needs to adopt it."""

    kernel_id: str
    kernel_name: str
    phase: KernelPhase
    machine: str
    connection_file: str
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The connection info; it holds the signing key, hence no ``repr``."""
    launch: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The JSON-safe arguments that started it, without its environment."""
    provisioner: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What a provisioner other than the plain local one needs to find its kernel again."""
    process: ProcessIdentity | None = None
    intent: SessionRecord | None = None
    """The session that it is started for, until that session is committed."""
    execution_state: str = "starting"
    last_activity: datetime = field(default_factory=now)
    started_at: datetime = field(default_factory=now)
    adoptions: int = 0

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is no process of this host, so that only its provisioner can tell of it."""
        return bool(self.provisioner) and self.process is None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelActivity:
    """What changes often about a kernel."""

    kernel_id: str
    execution_state: str
    last_activity: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of history: it is committed together with the change that it tells of."""

    action: str
    session_id: str | None = None
    kernel_id: str | None = None
    detail: str = ""
    user: str = "system"
    time: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecord:
    """A server process that held, or holds, the workspace's lease."""

    server_id: str
    process: ProcessIdentity
    hostname: str
    started_at: datetime
    stopped_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is committed in one transaction and then shown, or neither."""

    sessions: tuple[SessionRecord, ...] = ()
    forgotten_sessions: tuple[str, ...] = ()
    kernels: tuple[KernelRecord, ...] = ()
    forgotten_kernels: tuple[str, ...] = ()
    activity: tuple[KernelActivity, ...] = ()
    absorbed: tuple[tuple[str, str], ...] = ()
    """Pairs (forgotten session, session that takes over its history)."""
    events: tuple[Event, ...] = ()
    server: ServerRecord | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to commit."""
        return any(getattr(self, name) for name in self.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a store holds of the present, in the order in which it was created."""

    sessions: tuple[SessionRecord, ...] = ()
    kernels: tuple[KernelRecord, ...] = ()
