"""What one server owns: the lease, the opened store and the registry. Made before any manager."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import shlex
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir

from .errors import (
    SchemaTooNewError,
    SessionsError,
    StateRefusedError,
    StateUnusableError,
    StoreCorruptError,
    StoreUnavailableError,
)
from .folder import STATE_DIR, Lease, Place, describe, discard, places, prepare
from .host import POSIX, identify, is_on_network, machine_id
from .models import (
    Change,
    Event,
    KernelActivity,
    KernelPhase,
    KernelRecord,
    ServerRecord,
    SessionState,
    Snapshot,
    now,
)
from .registry import Registry
from .storage.sqlite import MEMORY, SQLiteStore, is_sqlite_file
from .storage.store import Store
from .tasks import Tasks


class Workspace:
    """The sessions and kernels that belong together, and every change made to them.

    A change is committed first and shown in :attr:`registry` then, or neither.

    :param store: what keeps it, for a workspace without a folder, a lease and kernel processes
    :param state_dir: the folder of all workspaces, for one that :meth:`open` opens
    :param database: an explicit database file in place of the workspace's own
    :param kernels_on_stop: ``"keep"`` or ``"shutdown"``
    """

    def __init__(
        self,
        log: logging.Logger | Any,
        *,
        store: Store | None = None,
        state_dir: str | None = None,
        database: str | None = None,
        kernels_on_stop: str = "shutdown",
    ) -> None:
        self.store: Store = store or SQLiteStore(MEMORY)
        self.registry = Registry()
        self.kernels_on_stop = kernels_on_stop
        self.recovered = False
        """Whether the records were compared with the processes that run."""
        self.place: Place | None = None
        """Its state folder; ``None`` when nothing is kept."""
        self.keeps_kernels = False
        """Whether kernel processes outlive this server."""
        self.unusable: StoreUnavailableError | None = None
        """Why nothing can be kept although it should be: every change is refused with it."""
        self.lost: set[str] = set()
        """Keys of places whose records are lost, so that kernels without a record may run."""
        self.closing = False
        self.log = log
        self._lease: Lease | None = None
        self.server: ServerRecord | None = None
        """This server process; it is recorded by the recovery's transaction."""
        self._lock = asyncio.Lock()
        self._tasks = Tasks()
        self._deleting: set[str] = set()
        self._failing = False
        self._siblings: list[Place] = []
        self._state_dir = state_dir
        self._database = database
        self._is_open = False

    # ------------------------------------------------------------------ changes

    async def transact(self, build: Callable[[], Change]) -> Change:
        """Commit what ``build`` makes of the registry as it then is, and show it.

        It is finished even when the caller is cancelled.

        :raises StoreUnavailableError: nothing was changed
        """
        return await self._tasks.finish(self._transact(build))

    def refuse_unusable(self) -> None:
        """Refuse a change where nothing can be kept although it should be.

        :raises StoreUnavailableError: so it is
        """
        if self.unusable is not None:
            raise self.unusable

    async def _transact(self, build: Callable[[], Change]) -> Change:
        self.refuse_unusable()
        async with self._lock:
            change = build()
            if change:
                try:
                    await self.store.commit(change)
                except StoreUnavailableError as error:
                    self._report(error)
                    raise
                self._failing = False
                self.registry.apply(change)
            return change

    def commit_now(self, change: Change) -> None:
        """Commit a change before the loop runs; one that cannot be kept is shown all the same."""
        try:
            self.store.commit_now(change)
        except StoreUnavailableError as error:
            self._report(error)
        self.registry.apply(change)

    def _report(self, error: StoreUnavailableError) -> None:
        """Log the first of a row of failures."""
        if not self._failing:
            self.log.error("%s. Until then changes are refused with status 503.", error)
        self._failing = True

    def note(self, build: Callable[[], Change]) -> None:
        """Commit a change soon that nobody waits for; a failure is logged by :meth:`transact`."""
        with contextlib.suppress(RuntimeError):  # no loop: there is nobody to serve either
            asyncio.get_running_loop()
            self._tasks.spawn(self._noted(build))

    async def _noted(self, build: Callable[[], Change]) -> None:
        try:
            await self._transact(build)
        except StoreUnavailableError:
            pass  # it is logged
        except Exception:
            self.log.exception("A change was lost.")

    async def settled(self) -> None:
        """Wait until everything that was noted so far is committed, or refused."""
        await self._tasks.settled()

    # ------------------------------------------------------------------ kernels

    async def reserve(self, kernel: KernelRecord) -> None:
        """Record that a kernel is about to be started.

        :raises StoreUnavailableError: it must not be started
        """
        await self.transact(lambda: Change(kernels=(kernel,)))

    async def running(self, kernel: KernelRecord) -> None:
        """Record the process of a kernel that was started or restarted.

        :raises StoreUnavailableError: only what was recorded before is known of it
        """

        def build() -> Change:
            known = self.registry.kernels.get(kernel.kernel_id)
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
                lambda: Change(
                    kernels=tuple(
                        replace(self.registry.kernels[k], phase=KernelPhase.STOPPING)
                        for k in kernel_ids
                        if k in self.registry.kernels
                    )
                )
            )

    def not_stopping(self, kernel_id: str) -> None:
        """Note that a kernel could not be ended, and is no remnant."""

        def build() -> Change:
            kernel = self.registry.kernels.get(kernel_id)
            if kernel is None:
                return Change()
            return Change(kernels=(replace(kernel, phase=KernelPhase.RUNNING),))

        self.note(build)

    def kernel_gone(self, kernel_id: str, reason: str) -> None:
        """Note that a kernel has ended: its sessions turn dormant."""
        self.note(lambda: self._without_kernel(kernel_id, reason))

    def _without_kernel(self, kernel_id: str, reason: str) -> Change:
        sessions = [
            replace(session, state=SessionState.DORMANT, reason=reason)
            for session in self.registry.of_kernel(kernel_id)
            if session.session_id not in self._deleting
        ]
        return Change(
            forgotten_kernels=(kernel_id,) if kernel_id in self.registry.kernels else (),
            sessions=tuple(sessions),
            events=tuple(
                Event(action="dormant", session_id=s.session_id, kernel_id=kernel_id, detail=reason)
                for s in sessions
            ),
        )

    def active(self, activity: Callable[[], Iterable[KernelActivity]]) -> asyncio.Future[Any]:
        """Record activity of kernels, read when it is their turn."""
        known = self.registry.kernels
        return self._tasks.spawn(
            self._transact(
                lambda: Change(activity=tuple(a for a in activity() if a.kernel_id in known))
            )
        )

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
            self._keep_nothing()
        except OSError as error:
            reason = error.reason if isinstance(error, StoreUnavailableError) else str(error)
            self.unusable = StateUnusableError(self._database or self._state_dir, reason)
            self._report(self.unusable)
            self._keep_nothing()

    def _keep_nothing(self) -> None:
        self._let_go()
        self.store = SQLiteStore(MEMORY)
        self.registry = Registry()

    def _open(self, state_dir: Path, root_dir: str, database: str | None) -> None:
        candidates = list(places(state_dir, root_dir, database))
        for place in candidates:
            prepare(place)
            try:
                self._lease = Lease.take(place.folder)
            except FileNotFoundError:
                continue  # another server has just merged it
            if self._lease is not None:
                self.place = place
                break
        else:
            raise StateRefusedError(str(state_dir), "every workspace of this root folder is in use")
        describe(place)
        self.registry.load(self._open_store(place))
        self.log.info("Sessions are kept in %s.", place.folder)
        if place is not candidates[0]:
            self.log.warning(
                "Another server uses workspace %s; this one has its own, %s.",
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
                lease = Lease.take(place.folder)
                if lease is None:
                    continue
                try:
                    self._merge_one(place)
                finally:
                    lease.release()
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
        self.registry.apply(change)
        assert self.place is not None
        for kernel in change.kernels:
            with contextlib.suppress(OSError):
                log = place.log_file(kernel.kernel_id)
                log.replace(self.place.log_file(kernel.kernel_id))
        discard(place)
        self.log.info(
            "Took over %d sessions and %d kernels of workspace %s.",
            len(change.sessions),
            len(change.kernels),
            place.key,
        )

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
                await self.transact(lambda: Change(server=server))

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
