"""How a session manager creates, changes and deletes sessions: committed first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.services.sessions.sessionmanager import (
    KernelName,
    KernelSessionRecord,
    ModelName,
)
from tornado import web

from .. import metrics
from ..commits import Build, acting_user
from ..errors import StoreUnavailableError, ValueRefusedError
from ..kernels.manager import KernelIdTakenError, starting_for
from ..models import Change, SessionRecord, SessionState
from ..registry import Registry
from . import changes
from .reading import Creating, Model, SessionNotFoundError, SessionReader

reason_of_deletion: ContextVar[str] = ContextVar("reason_of_deletion", default="")
"""Why sessions are deleted in this context, where nobody asked for it."""

condition: ContextVar[Callable[[SessionRecord], None] | None] = ContextVar(
    "condition", default=None
)
"""What raises, when it is called, where a session is not to be changed in this context."""

reviving: ContextVar[str] = ContextVar("reviving", default="")
"""Which of a path's dormant sessions is to be revived in this context."""

introduced: ContextVar[str] = ContextVar("introduced", default="")
"""The session that is there already, which a subclass is asked in this context to create."""


class SessionChanger(SessionReader):
    """The changing half of :class:`~.manager.SessionManager`: what jupyter_server's changes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._replaced: dict[str, str] = {}
        """The kernels of sessions that are being given another one."""

    async def create_session(
        self,
        path: str | None = None,
        name: ModelName | None = None,
        type: str | None = None,
        kernel_name: KernelName | None = None,
        kernel_id: str | None = None,
    ) -> Model:
        """Create a session, with a new kernel unless ``kernel_id`` runs, and return its model.

        A dormant session of the path comes back under its id. It is finished, or undone, also
        when the caller is cancelled.

        :raises tornado.web.HTTPError: 503, it cannot be stored; no kernel is left behind
        """
        if known := introduced.get():
            introduced.set("")  # not for what a subclass begins in this context
            return await self.get_session(session_id=known)
        _check_texts(path=path, name=name, type=type, kernel_name=kernel_name, kernel_id=kernel_id)
        await self._load()
        dormant = self._revivable(path)
        session_id = dormant.session_id if dormant else self.new_session_id()
        if dormant and not kernel_name and not kernel_id and dormant.kernel_name:
            kernel_name = KernelName(dormant.kernel_name)
        intent = SessionRecord(session_id=session_id, path=path, name=name, type=type)
        self._creating[session_id] = Creating(intent)
        pending = KernelSessionRecord(session_id=session_id)
        self._pending_sessions.update(pending)
        create = metrics.counted("revive" if dormant else "create")(self._create)
        created: Model = await self._tasks.finish(create(intent, pending, kernel_name, kernel_id))
        return created

    async def _create(
        self,
        intent: SessionRecord,
        pending: KernelSessionRecord,
        kernel_name: KernelName | None,
        kernel_id: str | None,
    ) -> Model:
        arguments: dict[str, Any] = {
            "path": intent.path,
            "name": intent.name,
            "type": intent.type,
        }
        try:
            is_new = kernel_id is None or kernel_id not in self.kernel_manager
            if kernel_id is not None and self._workspace.registry.is_ending(kernel_id):
                raise KernelIdTakenError(kernel_id, "is being ended")
            if is_new:
                kernel_id = await self.start_kernel_for_session(
                    session_id=intent.session_id,
                    kernel_name=kernel_name,
                    kernel_id=kernel_id,
                    **arguments,
                )
            pending.kernel_id = kernel_id
            self._pending_sessions.update(pending)
            # Its document may have been renamed while the kernel started.
            arguments["path"] = self._creating[intent.session_id].record.path
            arguments["name"] = self._creating[intent.session_id].record.name
            try:
                model: Model = await self.save_session(
                    intent.session_id, kernel_id=kernel_id, **arguments
                )
            except Exception:
                if is_new:
                    await ensure_async(self.kernel_manager.shutdown_kernel(kernel_id, now=True))
                raise
            return model
        finally:
            self._pending_sessions.remove(pending)
            self._creating.pop(intent.session_id).done.set_result(None)

    def _revivable(self, path: str | None) -> SessionRecord | None:
        """Return a session of the path that nobody sees, for want of a kernel."""
        if self._alone:
            return None
        registry = self._workspace.registry
        candidates = [
            *registry.at_path(path, SessionState.DORMANT),
            *(
                record
                for record in registry.at_path(path, SessionState.LIVE)
                if record.kernel_id not in self.kernel_manager
            ),
        ]
        wanted = reviving.get()
        return next(
            (
                c
                for c in candidates
                if c.session_id not in self._creating and wanted in ("", c.session_id)
            ),
            None,
        )

    async def start_kernel_for_session(
        self,
        session_id: str,
        path: str | None,
        name: ModelName | None,
        type: str | None,
        kernel_name: KernelName | None,
        kernel_id: str | None = None,
    ) -> str:
        """Start a kernel for a session, as jupyter_server's does, and return its id.

        Until the session is saved, the kernel's record says what session it is for.
        """
        token = starting_for.set(
            SessionRecord(
                session_id=session_id, path=path, name=name, type=type, created_by=acting_user()
            )
        )
        try:
            folder = await ensure_async(self.contents_manager.get_kernel_path(path=path))
            started: str = await ensure_async(
                self.kernel_manager.start_kernel(
                    path=folder,
                    kernel_name=kernel_name,
                    env=self.get_kernel_env(path, name),
                    kernel_id=kernel_id,
                )
            )
            return started
        finally:
            starting_for.reset(token)

    async def save_session(
        self,
        session_id: str,
        path: str | None = None,
        name: str | None = None,
        type: str | None = None,
        kernel_id: str | None = None,
    ) -> Model:
        """Store a session whose kernel runs, and return its model.

        :raises tornado.web.HTTPError: 503, it cannot be stored; 404, its kernel is gone
        """
        _check_texts(path=path, name=name, type=type, kernel_id=kernel_id)
        await self._load()
        session = SessionRecord(
            session_id=session_id,
            path=path,
            name=name,
            type=type,
            kernel_id=kernel_id,
            kernel_name=self._kernel_name(kernel_id),
            created_by=acting_user(),
        )
        await self._durably(lambda records: changes.saved(records, session))
        return await self.get_session(session_id=session_id)

    @metrics.counted("change")
    async def update_session(self, session_id: str, **kwargs: Any) -> None:
        """Change columns of a session.

        A dormant session of a new path is absorbed: its history goes on under ``session_id``.

        :raises TypeError: one of them is not a column
        :raises tornado.web.HTTPError: 404, there is no such session; 503, it cannot be stored
        """
        await self.get_session(session_id=session_id)
        if not kwargs:
            return
        self._check_columns(kwargs)
        _check_texts(**kwargs)
        check = condition.get()
        await self._durably(lambda records: self._updated(records, session_id, kwargs, check))
        session = self._workspace.registry.sessions.get(session_id)
        if session is not None:
            self._tell_kernel(session)

    def _updated(
        self,
        records: Registry,
        session_id: str,
        values: Mapping[str, Any],
        check: Callable[[SessionRecord], None] | None,
    ) -> Change:
        session = _live(records, session_id)
        if check is not None:
            check(session)
        if session_id in self._replaced and "kernel_id" in values:
            # Not what it was when the change was asked for: it may have been revived meanwhile.
            self._replaced[session_id] = str(session.kernel_id)
        kernel_id = values.get("kernel_id", session.kernel_id)
        if kernel_id != session.kernel_id and records.is_ending(kernel_id):
            raise web.HTTPError(400, f"No such kernel: {kernel_id}")
        return changes.updated(
            records,
            session,
            values,
            kernel_name=self._kernel_name(kernel_id),
            reviving=self._creating,
        )

    async def delete_session(self, session_id: str) -> None:
        """End a session and its kernel.

        It is committed first: a crash in between leaves a remnant that the next server ends.

        :raises tornado.web.HTTPError: 404, there is no such session; 503, it cannot be stored
        """
        pending = KernelSessionRecord(session_id=session_id)
        self._pending_sessions.update(pending)
        await self._tasks.finish(self._delete(session_id, pending))

    @metrics.counted("delete")
    async def _delete(self, session_id: str, pending: KernelSessionRecord) -> None:
        try:
            await self.get_session(session_id=session_id)
            before: list[Change] = []
            detail = reason_of_deletion.get()

            def build(records: Registry) -> Change:
                session = _live(records, session_id)
                kernel = records.kernels.get(session.kernel_id or "")
                before[:] = [Change(sessions=(session,), kernels=(kernel,) if kernel else ())]
                return changes.deleted(records, session, detail)

            with self._workspace.deleting(session_id):
                await self._durably(build)
                [restored] = before
                kernel_id = str(restored.sessions[0].kernel_id)
                try:
                    await ensure_async(self.kernel_manager.shutdown_kernel(kernel_id))
                except Exception:
                    if await self._runs(kernel_id):
                        await self._durably(lambda _: changes.kept(restored))
                        raise
        finally:
            self._pending_sessions.remove(pending)

    # ------------------------------------------------------------------ without a kernel

    @metrics.counted("change")
    async def change_dormant(self, session_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a dormant session, but not its kernel.

        :raises tornado.web.HTTPError: 404, there is none; 503, it cannot be stored
        """
        check = condition.get()

        def build(records: Registry) -> Change:
            session = records.sessions.get(session_id)
            if session is None:
                raise SessionNotFoundError(session_id=session_id)
            if check is not None:
                check(session)
            return changes.updated(records, session, values, reviving=self._creating)

        await self._durably(build)

    async def forget_sessions(
        self, session_ids: Iterable[str], *, only_dormant: bool = False
    ) -> set[str]:
        """Delete sessions, in one transaction, and let their kernels run on.

        :param only_dormant: leave those alone that have a kernel
        :returns: the ids of those that were there
        :raises tornado.web.HTTPError: 503, it cannot be stored; nothing was changed
        """
        wanted = dict.fromkeys(session_ids)
        found: list[SessionRecord] = []

        def build(records: Registry) -> Change:
            found[:] = [
                session
                for session_id in wanted
                if (session := records.sessions.get(session_id)) is not None
                and not (only_dormant and self._has_kernel(session))
            ]
            return changes.forgotten(found, "")

        with metrics.operation("forget", times=len(wanted)):
            await self._durably(build)
        return {session.session_id for session in found}

    def _has_kernel(self, session: SessionRecord) -> bool:
        return session.state is SessionState.LIVE and session.kernel_id in self.kernel_manager

    # ------------------------------------------------------------------ how it is done

    async def _runs(self, kernel_id: str) -> bool:
        if kernel_id not in self.kernel_manager:
            return False
        try:
            return bool(await ensure_async(self.kernel_manager.is_alive(kernel_id)))
        except Exception:
            return True  # nothing says that it does not

    def _kernel_name(self, kernel_id: str | None) -> str | None:
        try:
            name = self.kernel_manager.get_kernel(kernel_id).kernel_name
        except (web.HTTPError, KeyError, AttributeError):
            return None
        return str(name)

    async def _durably(self, build: Build) -> None:
        try:
            await self._workspace.transact(build)
        except StoreUnavailableError as error:
            raise web.HTTPError(503, str(error)) from error
        except ValueRefusedError as error:
            raise web.HTTPError(400, f"This cannot be stored: {error}") from error


def _live(records: Registry, session_id: str) -> SessionRecord:
    """Return a live session.

    :raises tornado.web.HTTPError: 404, there is none, as when it was deleted meanwhile
    """
    session = records.sessions.get(session_id)
    if session is None or session.state is not SessionState.LIVE:
        raise SessionNotFoundError(session_id=session_id)
    return session


def _check_texts(**values: Any) -> None:
    """Refuse what is no text, or none that a file name or a database can hold.

    :raises tornado.web.HTTPError: 400, with the name of the value
    """
    for name, value in values.items():
        if value is None:
            continue
        if not isinstance(value, str):
            raise web.HTTPError(400, f"{name} must be a string")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise web.HTTPError(400, f"{name} must be valid Unicode text") from error
        if "\0" in value:
            raise web.HTTPError(400, f"{name} must not contain a null character")
