"""What is kept on this host, read from the state folder without a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from ..administration.catalog import Catalog, Kernels
from ..administration.schemas import (
    EventItem,
    Filter,
    KernelItem,
    Notebook,
    Process,
    SessionItem,
)
from ..administration.transcript import read_transcript
from ..errors import SessionsError, StateRefusedError
from ..folder import Place, describe, faults, known_places, prepare
from ..host import machine_id
from ..keeper.takeover import is_elsewhere
from ..kernels.logs import end_of_log
from ..kernels.recovery import Adopt, Sleep, observe, plan, reaped, rebuilt
from ..kernels.usage import Usage, UsageMeter
from ..lease import Holder, Lease, command_at_work
from ..models import (
    Change,
    Event,
    EventFilter,
    KernelRecord,
    ProcessIdentity,
    SessionRecord,
    SessionState,
    Snapshot,
)
from ..registry import Registry
from ..wire import Kernel, NamedDocument
from ..workspace import store_of
from .items import Item, kernel_id, kernel_matches, of_kernel
from .outcome import CommandError


@dataclass(frozen=True, slots=True)
class KeptKernel:
    """A recorded kernel whose process runs."""

    record: KernelRecord
    process: ProcessIdentity
    sessions: tuple[SessionRecord, ...]


class Kept:
    """One workspace as it lies in its folder.

    :param holder: who has its lease: a server that could not be asked, or another command
    :param is_elsewhere: whether its kernels are another container's
    :param problem: why its records cannot be read, if so: its kernels are found all the same
    """

    def __init__(
        self,
        place: Place,
        snapshot: Snapshot,
        *,
        holder: Holder | None = None,
        is_elsewhere: bool = False,
        problem: SessionsError | None = None,
    ) -> None:
        self.place = place
        self.snapshot = snapshot
        self.holder = holder
        self.is_elsewhere = is_elsewhere
        self.problem = problem

    @property
    def root_dir(self) -> str:
        """The root folder that it is of."""
        return self.place.root_dir

    @property
    def folder(self) -> str:
        """Where it lies."""
        return str(self.place.folder)

    @property
    def use(self) -> str:
        """Who uses it, for people."""
        if self.is_elsewhere:
            return "in use by another container"
        if self.holder is None:
            return "no server"
        return f"in use by a server, {self.holder}" if self.holder.pid else "in use by a server"

    @property
    def is_in_use(self) -> bool:
        """Whether what is recorded is somebody else's to change."""
        return self.is_elsewhere or self.holder is not None

    @cached_property
    def processes(self) -> Mapping[str, ProcessIdentity]:
        """The processes of its kernels that run, half-started ones included, by kernel id."""
        return observe(self.snapshot.kernels)

    @property
    def kernels(self) -> tuple[KeptKernel, ...]:
        """Its kernels that run on this host."""
        return tuple(
            KeptKernel(
                kernel,
                self.processes[kernel.kernel_id],
                tuple(
                    s
                    for s in self.snapshot.sessions
                    if s.kernel_id == kernel.kernel_id and s.state is SessionState.LIVE
                ),
            )
            for kernel in self.snapshot.kernels
            if kernel.kernel_id in self.processes
        )

    # ------------------------------------------------------------------ as the API would tell it

    def items(self, wanted: Filter | None = None) -> list[Item]:
        """Return its sessions, and its kernels without one, as the next server would find them."""
        wanted = wanted or Filter()
        usage = asyncio.run(UsageMeter().measure(self.processes)) if self.processes else {}
        records = {k.kernel_id: k for k in self.snapshot.kernels}
        registry = Registry()
        registry.apply(Change(sessions=tuple(self._sessions())))
        kernels = Kernels(
            {s.kernel_id or "" for s in registry.live()},
            lambda: {k: record.last_activity.timestamp() for k, record in records.items()},
            usage,
        )
        sessions = [
            _session(session, records.get(session.kernel_id or ""), usage)
            for session in Catalog().matching(registry, wanted, kernels)
        ]
        alone = (
            of_kernel(msgspec.to_builtins(_kernel(kernel, usage)))
            for kernel in records.values()
            if kernel.kernel_id in self.processes and not registry.of_kernel(kernel.kernel_id)
        )
        return [
            {**item, "root_dir": self.root_dir, "server": None}
            for item in (
                *map(msgspec.to_builtins, sessions),
                *(item for item in alone if kernel_matches(item, wanted)),
            )
        ]

    def _sessions(self) -> list[SessionRecord]:
        sessions = {s.session_id: s for s in self.snapshot.sessions}
        if not self.is_in_use:  # else its server is about to note what has changed
            kernels = {k.kernel_id: k for k in self.snapshot.kernels}
            for action in plan(
                sessions.values(),
                kernels.values(),
                self.processes,
                machine_id(),
                reaped(self.place, self.processes),
            ):
                if isinstance(action, Sleep):
                    session = action.session
                    last = kernels.get(session.kernel_id or "")
                    sessions[session.session_id] = replace(
                        session.asleep(action.reason),
                        since=last.last_activity if last else session.since,
                    )
                elif isinstance(action, Adopt) and action.session is not None:
                    sessions[action.session.session_id] = action.session
        return list(sessions.values())

    def history(self, wanted: EventFilter, most: int | None = None) -> list[Event]:
        """Return a part of the history, the latest first.

        :raises SessionsError: it cannot be read
        """
        if not os.path.exists(self.place.database):
            return []
        unused = not self.is_in_use
        return store_of(self.place).peek_events(wanted, most=most, unused=unused)

    def events(self, wanted: EventFilter, most: int | None) -> list[Item]:
        """Return a part of the history as items, the latest first.

        :raises SessionsError: it cannot be read
        """
        return [
            msgspec.to_builtins(
                EventItem(
                    id=event.event_id,
                    time=event.time,
                    action=event.action,
                    session_id=event.session_id,
                    kernel_id=event.kernel_id,
                    detail=event.detail,
                    user=event.user,
                )
            )
            for event in self.history(wanted, most)
        ]

    def log(self, item: Item, size: int) -> str:
        """Return the end of what an item's kernel wrote, without secrets.

        :raises OSError: there is no log
        """
        session, kernel = self._session_and_kernel(item)
        records = {k.kernel_id: k for k in self.snapshot.kernels}
        name = session.kernel_name if session else None
        return end_of_log(self.place, kernel, records.get(kernel), size, kernel_name=name)

    def transcript(self, item: Item, since: datetime | None) -> Notebook:
        """Return what an item's kernel ran and printed.

        :raises NothingRecordedError: nothing is kept of it
        """
        _, kernel = self._session_and_kernel(item)
        return read_transcript(
            self.place,
            kernel,
            kernel_name=item["kernel_name"],
            is_running=kernel in self.processes,
            since=since,
        )

    def _session_and_kernel(self, item: Item) -> tuple[SessionRecord | None, str]:
        """Return an item's session, and the id of its kernel, which may be gone."""
        known = {s.session_id: s for s in self.snapshot.sessions}
        session = known.get(item["id"])
        return session, (session and session.kernel_id) or kernel_id(item) or ""


def _session(
    session: SessionRecord, kernel: KernelRecord | None, usage: Mapping[str, Usage]
) -> SessionItem:
    is_live = session.state is SessionState.LIVE
    if not is_live:
        kernel = None
    return SessionItem(
        id=session.session_id,
        path=session.path,
        name=session.name,
        type=session.type,
        kernel=_model(kernel) if kernel else None,
        notebook=NamedDocument(path=session.path or "", name=session.name)
        if session.type == "notebook"
        else UNSET,
        state=session.state,
        reason=session.reason,
        created_at=session.created_at,
        created_by=session.created_by,
        since=session.since,
        last_activity=kernel.last_activity if kernel else session.since,
        kernel_name=session.kernel_name or (kernel.kernel_name if kernel else None),
        adoptions=kernel.adoptions if kernel else 0,
        connections=0,
        process=_process(usage.get(kernel.kernel_id)) if kernel else None,
        links={},
    )


def _kernel(kernel: KernelRecord, usage: Mapping[str, Usage]) -> KernelItem:
    return KernelItem(
        id=kernel.kernel_id,
        name=kernel.kernel_name,
        last_activity=kernel.last_activity,
        execution_state=kernel.execution_state,
        connections=0,
        started_at=kernel.started_at,
        adoptions=kernel.adoptions,
        process=_process(usage.get(kernel.kernel_id)),
        sessions=[],
        links={},
    )


def _model(kernel: KernelRecord) -> Kernel:
    return Kernel(
        id=kernel.kernel_id,
        name=kernel.kernel_name,
        last_activity=kernel.last_activity,
        execution_state=kernel.execution_state,
        connections=0,
    )


def _process(usage: Usage | None) -> Process | None:
    if usage is None:
        return None
    return Process(pid=usage.pid, cpu_percent=usage.cpu_percent, memory_bytes=usage.memory_bytes)


# ---------------------------------------------------------------------- finding it


def places_in(state_dir: Path, problems: list[str]) -> Iterator[Place]:
    """Yield every workspace of this host; what cannot be looked at is added to ``problems``."""
    try:
        folders = os.listdir(state_dir)
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(f"the state folder cannot be read ({error}): mend its owner and its modes")
        return
    problems += [
        f"a workspace cannot be read ({reason}): mend its owner and modes"
        for folder in sorted(folders)
        if (reason := _unreadable(state_dir / folder / "workspace.json")) is not None
    ]
    yield from known_places(state_dir)


def _unreadable(path: Path) -> OSError | None:
    """Return why a file that is there cannot be read, if so."""
    try:
        with open(path, "rb"):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error


def look(place: Place) -> Kept:
    """Read a workspace and change nothing, also while a server uses it.

    :raises SessionsError: others control it
    :raises OSError: it cannot be read
    """
    for fault in faults(place):
        if fault.is_refused:
            raise StateRefusedError(str(fault.path), fault.reason)
    holder, elsewhere = Lease.holder(place.folder), is_elsewhere(place.keeper)
    snapshot, problem = Snapshot(), None
    if os.path.exists(place.database):
        try:
            snapshot = store_of(place).peek(unused=holder is None and not elsewhere)
        except SessionsError as error:
            # Its kernels are found all the same, by the mark that they carry.
            snapshot, problem = Snapshot(kernels=tuple(rebuilt(place.key))), error
    return Kept(place, snapshot, holder=holder, is_elsewhere=elsewhere, problem=problem)


@contextlib.contextmanager
def held(place: Place, command: str, *, is_new: bool = False) -> Iterator[Kept]:
    """Take a workspace's lease, and read it: a server that starts waits meanwhile.

    :param command: what it is taken for
    :param is_new: make it where it is not there
    :raises CommandError: a server uses it
    :raises SessionsError: others control it
    :raises OSError: it cannot be written
    """
    prepare(place)
    if is_elsewhere(place.keeper):
        raise CommandError(
            f"{place.root_dir}: another container uses it, where its kernels run; do it there"
        )
    lease = Lease.take(place.folder, command)
    if lease is None:
        if (other := command_at_work(place.folder)) is not None:
            raise CommandError(
                f"{place.root_dir}: `jupyter sessions {other.command}` ({other}) uses it; "
                "try again when it has ended"
            )
        raise CommandError(
            f"{place.root_dir}: a server uses it; stop it first (`jupyter server stop`)"
        )
    try:
        snapshot, problem = Snapshot(), None
        if is_new:
            describe(place)
        if is_new or os.path.exists(place.database):
            try:
                snapshot = store_of(place).open()
            except SessionsError as error:
                snapshot, problem = Snapshot(kernels=tuple(rebuilt(place.key))), error
        yield Kept(place, snapshot, problem=problem)
    finally:
        lease.release()


def told(kernel: KeptKernel) -> str:
    """Return a kernel in words."""
    record = kernel.record
    return f"{record.kernel_name} kernel {record.kernel_id} pid {kernel.process.pid}"


def about(place: Place) -> Mapping[str, Any]:
    """Return a workspace as ``--json`` names it."""
    return {"root_dir": place.root_dir, "folder": str(place.folder), "database": place.database}
