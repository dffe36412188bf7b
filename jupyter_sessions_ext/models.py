"""The records that the registry shows and the store keeps, and the changes made to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any


def now() -> datetime:
    """Return the current time, timezone-aware, in UTC: the package's one clock."""
    return datetime.now(timezone.utc)


SYSTEM = "system"
"""Who does what no user asked for."""


class SessionState(str, Enum):
    """What a session is at the moment."""

    LIVE = "live"
    """Its kernel runs."""
    DORMANT = "dormant"
    """Its kernel is gone; opening the path revives it."""


class EventAction(str, Enum):
    """A transition: what an :class:`Event` tells of."""

    CREATED = "created"
    """A session came into being, live."""
    RENAMED = "renamed"
    """Its path changed; ``detail`` says from what."""
    KERNEL_CHANGED = "kernel_changed"
    """It has another kernel; ``detail`` says which it had."""
    ABSORBED = "absorbed"
    """It was renamed onto the path of a dormant session, whose history it takes over."""
    DORMANT = "dormant"
    """Live to dormant: its kernel is gone; ``detail`` says why."""
    REVIVED = "revived"
    """Dormant to live: its path was opened, and it has a new kernel."""
    RECOVERED = "recovered"
    """It is live again with a kernel that an earlier server had started for it."""
    DELETED = "deleted"
    """It is gone, dormant or live; ``detail`` says why, where nobody asked for it."""
    KEPT = "kept"
    """It was deleted, but its kernel could not be shut down: it is there again."""
    EXPIRED = "expired"
    """It was dormant for longer than sessions are kept, and is gone."""
    IMPORTED = "imported"
    """It came in, dormant, from an export."""
    ADOPTED = "adopted"
    """A kernel that an earlier server had started is this server's."""


LIVE, DORMANT, ABSENT = SessionState.LIVE, SessionState.DORMANT, None

TRANSITIONS: Mapping[EventAction, frozenset[tuple[SessionState | None, SessionState | None]]] = {
    EventAction.CREATED: frozenset({(ABSENT, LIVE)}),
    EventAction.RENAMED: frozenset({(LIVE, LIVE), (DORMANT, DORMANT)}),
    EventAction.KERNEL_CHANGED: frozenset({(LIVE, LIVE)}),
    EventAction.ABSORBED: frozenset({(LIVE, LIVE), (DORMANT, DORMANT)}),
    EventAction.DORMANT: frozenset({(LIVE, DORMANT)}),
    EventAction.REVIVED: frozenset({(DORMANT, LIVE), (LIVE, LIVE)}),
    EventAction.RECOVERED: frozenset({(ABSENT, LIVE), (DORMANT, LIVE), (LIVE, LIVE)}),
    EventAction.DELETED: frozenset({(LIVE, ABSENT), (DORMANT, ABSENT)}),
    EventAction.KEPT: frozenset({(ABSENT, LIVE)}),
    EventAction.EXPIRED: frozenset({(DORMANT, ABSENT)}),
    EventAction.IMPORTED: frozenset({(ABSENT, DORMANT)}),
}
"""The legal transitions: what a session's state may be before each, and after it.

A live session is revived, or recovered, whose kernel is gone without that having been recorded.
"""


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
    created_by: str = SYSTEM
    """The user's name, as in :attr:`Event.user`."""
    since: datetime = field(default_factory=now)
    """When it came into its state."""

    def asleep(self, reason: str) -> SessionRecord:
        """Return what it is when its kernel is gone."""
        since = self.since if self.state is SessionState.DORMANT else now()
        return replace(self, state=SessionState.DORMANT, reason=reason, since=since)

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

    action: EventAction
    session_id: str | None = None
    kernel_id: str | None = None
    detail: str = ""
    user: str = SYSTEM
    """The user's name, as the server's identity provider has it; nobody asked for the rest."""
    time: datetime = field(default_factory=now)
    event_id: int = field(default=0, compare=False)
    """Its number in the store that it was read from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are meant: those that all of it lets through."""

    session_id: str | None = None
    action: EventAction | None = None
    user: str | None = None
    since: datetime | None = None
    """Not before this time, in UTC."""
    until: datetime | None = None
    """Before this time, in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecord:
    """A server process that held, or holds, the workspace's lease."""

    server_id: str
    process: ProcessIdentity
    hostname: str
    started_at: datetime
    stopped_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLimits:
    """How much of the history is kept; ``None``: all of it."""

    since: datetime | None
    """Events before this are dropped."""
    most: int | None
    """So many events are kept, the latest."""


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
    past: tuple[Event, ...] = ()
    """Events that come in from another store: they are written as they are, and told to nobody."""
    server: ServerRecord | None = None
    history: HistoryLimits | None = None
    """What of the history is not kept any longer."""

    def __bool__(self) -> bool:
        """Whether there is anything to commit."""
        return any(getattr(self, name) for name in self.__dataclass_fields__)


def merged(changes: Iterable[Change]) -> Change:
    """Return the one change that does what these do one after the other."""
    sessions: dict[str, SessionRecord] = {}
    kernels: dict[str, KernelRecord] = {}
    activity: dict[str, KernelActivity] = {}
    forgotten_sessions: dict[str, None] = {}
    forgotten_kernels: dict[str, None] = {}
    absorbed: list[tuple[str, str]] = []
    events: list[Event] = []
    past: list[Event] = []
    server: ServerRecord | None = None
    history: HistoryLimits | None = None
    for change in changes:
        for session_id in change.forgotten_sessions:
            sessions.pop(session_id, None)
            forgotten_sessions[session_id] = None
        sessions |= {s.session_id: s for s in change.sessions}
        for kernel_id in change.forgotten_kernels:
            kernels.pop(kernel_id, None)
            activity.pop(kernel_id, None)
            forgotten_kernels[kernel_id] = None
        for kernel in change.kernels:
            kernels[kernel.kernel_id] = kernel
            activity.pop(kernel.kernel_id, None)  # the record has it, or is newer
        activity |= {a.kernel_id: a for a in change.activity}
        taken_over = dict(change.absorbed)
        absorbed += change.absorbed
        # Histories are taken over before this change's events are written.
        events = [
            replace(e, session_id=taken_over[e.session_id]) if e.session_id in taken_over else e
            for e in events
        ]
        events += change.events
        past += change.past
        server = change.server or server
        history = change.history or history
    return Change(
        sessions=tuple(sessions.values()),
        forgotten_sessions=tuple(forgotten_sessions),
        kernels=tuple(kernels.values()),
        forgotten_kernels=tuple(forgotten_kernels),
        activity=tuple(activity.values()),
        absorbed=tuple(absorbed),
        events=tuple(events),
        past=tuple(past),
        server=server,
        history=history,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a store holds of the present, in the order in which it was created."""

    sessions: tuple[SessionRecord, ...] = ()
    kernels: tuple[KernelRecord, ...] = ()
    last_seen: datetime | None = field(default=None, compare=False)
    """The latest time of an event, of a kernel's activity, or of a server's start or end."""
