"""What one server owns: the lease, the opened store and the registry. Made before any manager."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import shlex
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir

from .commits import Commits
from .errors import (
    SchemaTooNewError,
    SessionsError,
    StateRefusedError,
    StateUnusableError,
    StoreCorruptError,
    StoreUnavailableError,
)
from .folder import STATE_DIR, Place, describe, discard, known_places, places, prepare
from .host import POSIX, identify, is_on_network, machine_id
from .keeper.protocol import DAY, DEFAULT_LIMIT, DEFAULT_TOTAL
from .keeper.takeover import is_elsewhere, take_all, take_reasons
from .lease import Lease, command_at_work
from .metrics import Reading
from .models import (
    Change,
    Event,
    EventAction,
    KernelActivity,
    KernelPhase,
    KernelRecord,
    ServerRecord,
    Snapshot,
    now,
)
from .registry import Registry
from .retention import Retention
from .storage.sqlite import MEMORY, SQLiteStore, is_sqlite_file
from .storage.store import Store

COMMAND_TIMEOUT = 30.0
"""Seconds for which a server that starts waits for a command of ours that uses its workspace."""

_LOOK_INTERVAL = 0.1


class Workspace(Commits):
    """The sessions and kernels that belong together, and where they are kept.

    :param store: what keeps it, for a workspace without a folder, a lease and kernel processes
    :param state_dir: the folder of all workspaces, for one that :meth:`open` opens
    :param database: an explicit database file in place of the workspace's own
    :param kernels_on_stop: ``"keep"`` or ``"shutdown"``
    :param retention: what is kept for how long
    :param journal_limit: bytes that are kept of what each kernel sends
    :param journal_total: bytes that are kept of what all kernels send
    :param orphan_timeout: seconds after which kernels end that no server comes back for; 0: never
    """

    def __init__(
        self,
        log: logging.Logger | Any,
        *,
        store: Store | None = None,
        state_dir: str | None = None,
        database: str | None = None,
        kernels_on_stop: str = "shutdown",
        retention: Retention | None = None,
        journal_limit: int = DEFAULT_LIMIT,
        journal_total: int = DEFAULT_TOTAL,
        orphan_timeout: float = DAY,
    ) -> None:
        super().__init__(log, store or SQLiteStore(MEMORY))
        self.kernels_on_stop = kernels_on_stop
        self.retention = retention or Retention()
        self.journal_limit = journal_limit
        self.journal_total = journal_total
        self.orphan_timeout = orphan_timeout
        self.recorded_bytes: Callable[[], int] = lambda: 0
        """Tells how many bytes the keeper has of what kernels have sent."""
        self.recovered = False
        """Whether the records were compared with the processes that run."""
        self.place: Place | None = None
        """Its state folder; ``None`` when nothing is kept."""
        self.keeps_kernels = False
        """Whether kernel processes outlive this server."""
        self.refused = ""
        """Why nothing is kept although it should be; changes are made all the same."""
        self.adopted: set[str] = set()
        """Kernels that this server has adopted, whether or not they still run."""
        self.lost: set[str] = set()
        """Keys of places whose records are lost, so that kernels without a record may run."""
        self.closing = False
        self._lease: Lease | None = None
        self.server: ServerRecord | None = None
        """This server process; it is recorded by the recovery's transaction."""
        self._deleting: set[str] = set()
        self._siblings: list[Place] = []
        self._merged: list[tuple[Place, contextlib.ExitStack]] = []
        self._state_dir = state_dir
        self._database = database
        self._is_open = False

    # ------------------------------------------------------------------ kernels

    async def reserve(self, kernel: KernelRecord) -> None:
        """Record that a kernel is about to be started.

        :raises StoreUnavailableError: it must not be started
        """
        await self.transact(lambda _: Change(kernels=(kernel,)))

    async def running(self, kernel: KernelRecord) -> None:
        """Record the process of a kernel that was started or restarted.

        :raises StoreUnavailableError: only what was recorded before is known of it
        """

        def build(records: Registry) -> Change:
            known = records.kernels.get(kernel.kernel_id)
            if known is None:
                return Change(kernels=(kernel,))
            return Change(
                kernels=(
                    replace(
                        kernel,
                        phase=kernel.phase if known.phase is KernelPhase.STARTING else known.phase,
                        intent=known.intent,
                        started_at=known.started_at,
                        adoptions=known.adoptions,
                    ),
                )
            )

        await self.transact(build)

    async def stopping(self, kernel_ids: Iterable[str]) -> None:
        """Record that kernels are asked to end, so that a crash leaves remnants, not strays.

        A store that cannot be written keeps nobody from ending a kernel.
        """
        with contextlib.suppress(StoreUnavailableError):
            await self.transact(
                lambda records: Change(
                    kernels=tuple(
                        replace(records.kernels[k], phase=KernelPhase.STOPPING)
                        for k in kernel_ids
                        if k in records.kernels
                    )
                )
            )

    def not_stopping(self, kernel_id: str) -> None:
        """Note that a kernel could not be ended, and is no remnant."""

        def build(records: Registry) -> Change:
            kernel = records.kernels.get(kernel_id)
            if kernel is None:
                return Change()
            return Change(kernels=(replace(kernel, phase=KernelPhase.RUNNING),))

        self.note(build)

    def kernel_gone(self, kernel_id: str, reason: str, user: str | None = None) -> None:
        """Note that a kernel has ended: its sessions turn dormant."""
        self.note(lambda records: self._without_kernel(records, kernel_id, reason), user)

    def _without_kernel(self, records: Registry, kernel_id: str, reason: str) -> Change:
        sessions = [
            session.asleep(reason)
            for session in records.of_kernel(kernel_id)
            if session.session_id not in self._deleting
        ]
        return Change(
            forgotten_kernels=(kernel_id,) if kernel_id in records.kernels else (),
            sessions=tuple(sessions),
            events=tuple(
                Event(
                    action=EventAction.DORMANT,
                    session_id=s.session_id,
                    kernel_id=kernel_id,
                    detail=reason,
                )
                for s in sessions
            ),
        )

    def active(self, activity: Callable[[], Iterable[KernelActivity]]) -> asyncio.Future[Any]:
        """Record activity of kernels, read when it is their turn."""
        return self._tasks.spawn(
            self.transact(
                lambda records: Change(
                    activity=tuple(a for a in activity() if a.kernel_id in records.kernels)
                )
            )
        )

    def will_have_session(self, kernel_id: str) -> bool:
        """Tell whether a session stays, dormant, when a kernel is gone."""
        sessions = self.registry.of_kernel(kernel_id)
        return any(session.session_id not in self._deleting for session in sessions)

    @contextlib.contextmanager
    def deleting(self, session_id: str) -> Iterator[None]:
        """Keep a session that is being deleted from turning dormant when its kernel ends."""
        self._deleting.add(session_id)
        try:
            yield
        finally:
            self._deleting.discard(session_id)

    @property
    def stop_command(self) -> str:
        """What ends the kernels that are kept here, those of other root folders included."""
        where = self.place.folder.parent if self.place else Path()
        default = Path(jupyter_data_dir(), STATE_DIR)
        option = "" if where == default else f" --state-dir {shlex.quote(str(where))}"
        return f"jupyter sessions stop --all{option}"

    def all_keepers(self) -> Iterable[Path]:
        """Return the folders of the keepers that see the network that this server sees."""
        known = known_places(Path(self._state_dir or ""))
        return [p.keeper for p in known if p.keeper.is_dir() and not is_elsewhere(p.keeper)]

    def reading(self) -> Reading:
        """Return what :mod:`.metrics` shows of it."""
        kernels = (self.registry.kernels.get(kernel_id) for kernel_id in self.adopted)
        return Reading(
            sessions=list(self.registry.sessions.values()),
            # An adopted kernel's id may have been given to a new one.
            adopted_kernels=sum(kernel is not None and kernel.adoptions > 0 for kernel in kernels),
            journal_bytes={"store": self.store.journal_bytes, "kernels": self.recorded_bytes()},
        )

    # ------------------------------------------------------------------ start and stop

    def open(self, root_dir: str) -> None:
        """Take a lease and open the state of a root folder, once; see :func:`folder.places`.

        A server must always start. Over state that it must not use, as another user's or a newer
        version's, it keeps nothing. Where state cannot be written, as on a read-only file system,
        nothing is acknowledged that would be lost: every change is refused.
        """
        if self._is_open or self._state_dir is None or self._database == MEMORY:
            return
        self._is_open = True
        try:
            self._open(Path(self._state_dir), root_dir, self._database)
        except (StateRefusedError, SchemaTooNewError) as error:
            self.log.error(
                "jupyter_sessions_ext keeps nothing in this run: %s. Sessions and kernels end "
                "with the server; those kept before are left as they are.",
                error,
            )
            self.refused = f"nothing is kept in this run: {error}"
            self._keep_nothing()
        except OSError as error:
            reason = error.reason if isinstance(error, StoreUnavailableError) else str(error)
            self.unusable = StateUnusableError(self._database or self._state_dir, reason)
            self.report(self.unusable)
            self._keep_nothing()

    def _keep_nothing(self) -> None:
        self._let_go()
        self.store = SQLiteStore(MEMORY)
        self.load(Snapshot())

    def _open(self, state_dir: Path, root_dir: str, database: str | None) -> None:
        candidates = list(places(state_dir, root_dir, database))
        for place in candidates:
            prepare(place)
            try:
                self._lease = self._take(place)
            except FileNotFoundError:
                continue  # another server has just merged it
            if self._lease is not None:
                self.place = place
                break
        else:
            raise StateRefusedError(str(state_dir), "every workspace of this root folder is in use")
        describe(place)
        self.load(self._open_store(place))
        self.log.info("Sessions are kept in %s.", place.folder)
        if place is not candidates[0]:
            self.log.warning(
                "%s uses workspace %s; this one has its own, %s.",
                "Another container" if is_elsewhere(candidates[0].keeper) else "Another server",
                candidates[0].key,
                place.key,
            )
        self._siblings = [sibling for sibling in candidates if sibling is not place]
        self._merge(self._siblings)
        process = identify(os.getpid())
        if process is not None:
            self.server = ServerRecord(
                server_id=str(uuid.uuid4()),
                process=process,
                hostname=platform.node(),
                started_at=now(),
            )
        if POSIX:
            self.keeps_kernels = True
        else:
            self.log.warning("Kernels cannot outlive the server on this platform; sessions can.")

    def _take(self, place: Place) -> Lease | None:
        """Take a place's lease, unless a server has it; wait for a command that has it.

        A place whose keeper runs in another container is in use: its kernels run there.

        :raises OSError: the place cannot be written
        """
        if is_elsewhere(place.keeper):
            return None
        deadline = time.monotonic() + COMMAND_TIMEOUT
        is_told = False
        while (lease := Lease.take(place.folder)) is None and time.monotonic() < deadline:
            command = command_at_work(place.folder)
            if command is None:
                return Lease.take(place.folder)  # it may have ended just now
            if not is_told:
                is_told = True
                self.log.warning(
                    "Waiting for `jupyter sessions %s` (%s), which uses workspace %s.",
                    command.command,
                    command,
                    place.key,
                )
            time.sleep(_LOOK_INTERVAL)
        return lease

    def _open_store(self, place: Place) -> Snapshot:
        if is_on_network(place.folder):
            self.log.warning(
                "%s is on a network file system: a rollback journal is used, which is slower.",
                place.folder,
            )
        database = Path(place.database)
        if _is_missing(database):
            self.lost.add(place.key)
        self.store = store_of(place)
        own = database.parent == place.folder
        try:
            if not is_sqlite_file(database):
                if not own:  # SessionManager.database_filepath refuses it, as jupyter_server's does
                    raise StateRefusedError(place.database, "it is not a SQLite database file")
                raise StoreCorruptError(place.database, "it has no SQLite header")
            return self.store.open()
        except StoreCorruptError as error:
            aside = _move_aside(database)
            self.log.error(
                "%s is not a readable database (%s). It was moved to %s; sessions begin anew with "
                "the kernels that still run.",
                place.database,
                error.reason,
                aside,
            )
            self.lost.add(place.key)
            return self.store.open()

    def _merge(self, siblings: Iterable[Place]) -> None:
        """Take over what servers left behind that ran beside another one of this root folder."""
        for place in siblings:
            if not place.folder.is_dir():
                continue
            try:
                prepare(place)
                lease = self._take(place)
                if lease is None:
                    continue
                with contextlib.ExitStack() as held:
                    held.callback(lease.release)
                    self._merge_one(place)
                    self._merged.append((place, held.pop_all()))
            except StoreCorruptError as error:
                self.lost.add(place.key)
                self.log.error("%s. It is left there; its kernels are taken over.", error)
            except (SessionsError, OSError) as error:
                self.log.error("What another server left is not taken over: %s", error)

    def _merge_one(self, place: Place) -> None:
        if _is_missing(Path(place.database)):
            self.lost.add(place.key)
        store = store_of(place)
        left = store.open()
        sessions, kernels = self.registry.sessions, self.registry.kernels
        change = Change(
            sessions=tuple(s for s in left.sessions if s.session_id not in sessions),
            kernels=tuple(k for k in left.kernels if k.kernel_id not in kernels),
        )
        change = replace(change, events=store.all_events() if change else ())
        # Committed here before it goes there: a crash in between leaves it in both, not in none.
        self.store.commit_now(change)
        self._show(change)
        assert self.place is not None
        for kernel in change.kernels:
            with contextlib.suppress(OSError):
                log = place.log_file(kernel.kernel_id)
                log.replace(self.place.log_file(kernel.kernel_id))
        take_reasons(place.keeper, self.place.keeper)
        self.log.info(
            "Took over %d sessions and %d kernels of workspace %s.",
            len(change.sessions),
            len(change.kernels),
            place.key,
        )

    def finish_merge(self) -> None:
        """Take what the keepers of merged kernels have; no line is lost if those are heard here."""
        for place, held in self._merged:
            with held:
                if self.place is not None:
                    take_all(place.keeper, self.place.keeper)
                    discard(place)
        self._merged.clear()

    def recorded_by_others(self) -> set[str]:
        """Return the kernels that other servers on this root folder have recorded.

        A kernel that was taken over still carries the mark of the workspace it came from.

        :raises StoreUnavailableError: it cannot be told
        """
        places = [place for place in self._siblings if not _is_missing(Path(place.database))]
        return {k.kernel_id for place in places for k in SQLiteStore(place.database).peek().kernels}

    async def stopped(self) -> None:
        """Record that this server ends in good order."""
        if self.server is not None:
            server = replace(self.server, stopped_at=now())
            with contextlib.suppress(StoreUnavailableError):
                await self.transact(lambda _: Change(server=server))

    def close(self) -> None:
        """Finish what is queued, close the store and free the lease. Safe to call twice."""
        self.closing = True
        self.store.close()
        self._let_go()

    def _let_go(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
        self.place = None
        self.finish_merge()
        self.keeps_kernels = False


def store_of(place: Place) -> SQLiteStore:
    """Return the store of a place, in the form that its file system can bear."""
    return SQLiteStore(place.database, wal=not is_on_network(place.folder))


def new_kernel(kernel_id: str, kernel_name: str, connection_file: str) -> KernelRecord:
    """Return the record of a kernel that is about to be started on this host."""
    return KernelRecord(
        kernel_id=kernel_id,
        kernel_name=kernel_name,
        phase=KernelPhase.STARTING,
        machine=machine_id(),
        connection_file=connection_file,
    )


def _is_missing(database: Path) -> bool:
    return not database.exists() or database.stat().st_size == 0


def _move_aside(database: Path) -> Path:
    stamp = now().strftime("%Y%m%dT%H%M%S%f")
    aside = database.with_name(f"{database.name}.corrupt-{stamp}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{database}{suffix}", f"{aside}{suffix}")
    return aside
