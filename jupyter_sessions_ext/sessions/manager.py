"""The session manager: jupyter_server's, on a registry that a store keeps."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from jupyter_client.jsonutil import json_default
from jupyter_core.utils import ensure_async
from jupyter_events import EventLogger
from jupyter_server.services.sessions.sessionmanager import KernelName, ModelName
from tornado import web
from tornado.ioloop import PeriodicCallback

from .. import metrics
from ..errors import KernelStartError, StoreUnavailableError
from ..kernels.activity import ActivityMixin
from ..models import SYSTEM, Change, SessionRecord
from ..registry import Registry
from ..retention import ServedTime
from . import changes
from .changing import SessionChanger, introduced, reason_of_deletion, reviving
from .documents import CONTENTS_EVENTS, is_at, moved
from .listing import Listing
from .reading import Model, SessionNotFoundError

DOCUMENT_DELETED = "its document was deleted"

UPKEEP_INTERVAL = 3600.0
"""Seconds between looks for what is not kept any longer."""


class SessionManager(SessionChanger):
    """Maps documents to kernels, as behind ``/api/sessions``.

    Under the extension the sessions are those of the server's workspace: they survive the server,
    and one whose kernel is gone turns dormant and comes back when its path is opened. Constructed
    alone, ``SessionManager(kernel_manager=..., contents_manager=...)``, it keeps what
    ``database_filepath`` says and drops sessions whose kernel is gone, as jupyter_server's does.

    Models, errors and signatures are those of
    :class:`jupyter_server.services.sessions.sessionmanager.SessionManager`. Reads come from
    memory. Changes are committed before they are acknowledged; one that cannot be committed
    raises ``HTTPError(503)`` and changes nothing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._listing = Listing(self.kernel_manager) if self._can_keep_lists() else None
        self._upkeep = PeriodicCallback(self._drop_expired, UPKEEP_INTERVAL * 1000)

    # ------------------------------------------------------------------ what /api/sessions asks for

    async def list_json(self) -> str:
        """Return what :meth:`list_sessions` returns, as JSON."""
        await self._settle()
        if self._listing is None:
            return json.dumps(await self.list_sessions(), default=json_default)
        return self._listing.all(self._workspace.registry)

    async def session_json(self, session_id: str) -> str:
        """Return what :meth:`get_session` returns for an id, as JSON.

        :raises tornado.web.HTTPError: 404, there is none, or its kernel is gone
        """
        await self._settle()
        if self._listing is None:
            return json.dumps(await self.get_session(session_id=session_id), default=json_default)
        text = self._listing.one(self._workspace.registry, session_id)
        if text is None:
            raise SessionNotFoundError(session_id=session_id)
        return text

    async def _settle(self) -> None:
        if isinstance(self.kernel_manager, ActivityMixin):
            await self.kernel_manager.settle()

    def _can_keep_lists(self) -> bool:
        """Tell whether nothing of a list is made by a class that we do not know."""
        return (
            not self._alone
            and isinstance(self.kernel_manager, ActivityMixin)
            and not self.kernel_manager.has_own_models()
            and all(
                getattr(type(self), name) is getattr(SessionManager, name)
                for name in ("list_sessions", "get_session", "row_to_model", "kernel_culled")
            )
        )

    async def open_session(
        self,
        *,
        path: str,
        name: str | None = None,
        type: str,
        kernel_name: str | None = None,
        kernel_id: str | None = None,
    ) -> Model:
        """Return the session of a path; create it, or revive it, where there is none.

        Whoever opens a path that is being opened waits, and gets the same session.

        :raises jupyter_client.kernelspec.NoSuchKernel: the kernel is not installed
        :raises DuplicateKernelError: the kernel id that was asked for is taken
        :raises tornado.web.HTTPError: 503, it cannot be stored
        """
        async with self._turn("path", path):
            while await self.session_exists(path=path):
                with contextlib.suppress(SessionNotFoundError):
                    return await self.get_session(path=path)
            model: Model = await self.create_session(
                path=path,
                name=ModelName(name) if name is not None else None,
                type=type,
                kernel_name=KernelName(kernel_name) if kernel_name is not None else None,
                kernel_id=kernel_id,
            )
            return model

    async def change_session(
        self, session_id: str, values: Mapping[str, Any], kernel_name: str | None = None
    ) -> Model:
        """Change columns of a session, and give it a new kernel where one is named.

        The kernel that it had ends. Changes of a session's kernel are made one after the other;
        any other change is made at once. It is finished also when the caller is cancelled.

        :raises KernelStartError: the kernel could not be started; nothing was changed
        :raises tornado.web.HTTPError: 404, there is no such session; 400, ``kernel_id`` does not
            run; 503, it cannot be stored
        """
        if kernel_name is None and "kernel_id" not in values:
            await self._update(session_id, values)
            return await self.get_session(session_id=session_id)
        return await self._tasks.finish(self._change_kernel(session_id, values, kernel_name))

    @metrics.counted("change")
    async def _change_kernel(
        self, session_id: str, values: Mapping[str, Any], kernel_name: str | None
    ) -> Model:
        async with self._turn("kernel", session_id):
            before = await self.get_session(session_id=session_id)
            if kernel_name is not None:
                kernel_id = await self._start_other(before, kernel_name)
            else:
                kernel_id = values["kernel_id"]
                is_ending = self._workspace.registry.is_ending(kernel_id)
                if is_ending or kernel_id not in self.kernel_manager:
                    raise web.HTTPError(400, f"No such kernel: {kernel_id}")
            self._replaced[session_id] = before["kernel"]["id"]
            try:
                await self._update(session_id, {**values, "kernel_id": kernel_id})
            except Exception:
                if kernel_name is not None:
                    await self._end_unused(kernel_id)
                raise
            finally:
                replaced = self._replaced.pop(session_id)
            try:
                return await self.get_session(session_id=session_id)
            finally:
                if kernel_id != replaced:
                    await self._end_replaced(replaced)

    async def end_session(self, session_id: str) -> None:
        """Delete a session and end its kernel, whichever class created it.

        :raises tornado.web.HTTPError: 404, there is no such session; 503, it cannot be stored
        """
        sessions = self._workspace.registry.sessions
        known = session_id in sessions
        try:
            await self.delete_session(session_id)
        except LookupError:
            if not self._is_overridden("delete_session", session_id):
                raise
            if session_id in sessions or not known:  # else it was deleted before the class failed
                await SessionManager.delete_session(self, session_id)

    @metrics.counted("revive")
    async def revive_session(self, session_id: str) -> None:
        """Give a dormant session a new kernel; a live one is left as it is.

        :raises jupyter_client.kernelspec.NoSuchKernel: its kernel is not installed
        :raises tornado.web.HTTPError: 404, there is no such session; 409, another session of its
            path is live; 503, it cannot be stored
        """
        path = self._path_of(session_id)
        async with self._turn("path", path):
            while await self.session_exists(path=path):
                with contextlib.suppress(SessionNotFoundError):
                    other = (await self.get_session(path=path))["id"]
                    if other == session_id:
                        return
                    raise web.HTTPError(409, f"{path}: session {other} of this path is live")
            if self._path_of(session_id) != path:
                raise web.HTTPError(409, f"Session {session_id} was renamed meanwhile; try again")
            session = self._workspace.registry.sessions[session_id]
            name = ModelName(session.name) if session.name is not None else None
            token = reviving.set(session_id)
            try:
                await self.create_session(path=path, name=name, type=session.type)
            finally:
                reviving.reset(token)

    def _path_of(self, session_id: str) -> str:
        session = self._workspace.registry.sessions.get(session_id)
        if session is None:
            raise SessionNotFoundError(session_id=session_id)
        if session.path is None:
            raise web.HTTPError(409, f"Session {session_id} has no path")
        return session.path

    # ------------------------------------------------------------------ what the server tells it

    def follow_documents(self, bus: EventLogger) -> None:
        """Have sessions renamed and deleted with their documents, as the server's events tell."""
        # As it was emitted: modifiers may have taken the path away for the sake of privacy.
        bus.add_listener(modified=False, schema_id=CONTENTS_EVENTS, listener=self._heard)

    async def _heard(self, logger: EventLogger, schema_id: str, data: dict[str, Any]) -> None:
        if data["action"] == "rename":
            await self.document_renamed(data["source_path"], data["path"])
        elif data["action"] == "delete":
            await self.document_deleted(data["path"])

    @metrics.counted("follow")
    async def document_renamed(self, source: str, target: str) -> None:
        """Have the sessions of a document, or of those below a folder, follow it.

        A session that is just being created is created under the new path. It is no change where
        a client has already made it.
        """
        for creating in self._creating.values():
            if is_at(creating.record, source):
                creating.record = moved(creating.record, source, target)
        change = await self._workspace.transact(
            lambda records: changes.moved(records, source, target, reviving=self._creating)
        )
        for session in change.sessions:
            if session.kernel_id in self.kernel_manager:
                self._tell_kernel(session)

    async def document_deleted(self, path: str) -> None:
        """Delete the sessions of a document, or of those below a folder, and end their kernels.

        One that is just being created, or revived, is deleted as soon as it is there.
        """
        token = reason_of_deletion.set(DOCUMENT_DELETED)
        try:
            found = {key for key, one in self._creating.items() if is_at(one.record, path)}

            def look(records: Registry) -> Change:
                found.update(s.session_id for s in records.live() if is_at(s, path))
                return Change()

            await self._workspace.transact(look)  # after a renaming that is just being committed
            await asyncio.gather(*map(self._end_without_document, found))
            await self._workspace.transact(
                lambda records: changes.forgotten(
                    [s for s in records.dormant() if is_at(s, path)], DOCUMENT_DELETED
                )
            )
        finally:
            reason_of_deletion.reset(token)

    async def _end_without_document(self, session_id: str) -> None:
        creating = self._creating.get(session_id)
        if creating is not None:
            await asyncio.wait([creating.done])
        try:
            await self.end_session(session_id)
        except SessionNotFoundError:
            pass  # it is what is wanted
        except Exception:
            self.log.exception("Session %s, without its document, is not deleted", session_id)

    # ------------------------------------------------------------------ subclasses

    def introduce_sessions(self) -> None:
        """Make a subclass that adds to :meth:`create_session` know the sessions of adopted kernels.

        It is asked to create each; there is nothing left to create when it asks us in turn. So
        jupyter-server-documents connects its rooms to the kernels, else it would run no cell.
        """
        if type(self).create_session is not SessionManager.create_session:
            for session in self._workspace.registry.live():
                if session.kernel_id in self.kernel_manager:
                    self._tasks.spawn(self._introduce(session))

    async def _introduce(self, session: SessionRecord) -> None:
        introduced.set(session.session_id)  # in this task alone
        try:
            await self.create_session(
                path=session.path,
                name=ModelName(session.name) if session.name is not None else None,
                type=session.type,
                kernel_name=KernelName(session.kernel_name) if session.kernel_name else None,
                kernel_id=session.kernel_id,
            )
        except Exception as error:  # whatever a user's class raises
            self.log.warning(
                "%s cannot take up session %s: %r", type(self).__name__, session.session_id, error
            )

    # ------------------------------------------------------------------ upkeep

    def start_upkeep(self) -> None:
        """Drop what is not kept any longer, from the store's log too, now and again.

        Not at once: the clock of a host that has just booted may be wrong.
        """
        self._served = ServedTime(self._workspace.last_seen)
        self._upkeep.start()

    async def _drop_expired(self) -> None:
        workspace = self._workspace
        present = self._served.tell()

        def build(records: Registry) -> Change:
            return workspace.retention.expired(records, present, but=self._creating)

        with contextlib.suppress(StoreUnavailableError):  # it is logged
            await workspace.transact(build, SYSTEM)
            await workspace.store.checkpoint()

    def close(self) -> None:
        """Close the store and free the lease. Safe to call twice."""
        upkeep = getattr(self, "_upkeep", None)
        if upkeep is not None:
            upkeep.stop()
        super().close()

    # ------------------------------------------------------------------ how it is done

    def _turn(self, what: str, subject: str) -> asyncio.Lock:
        """Return what those hold who do one thing to one subject, one after the other."""
        return self._turns.setdefault(f"{what}:{subject}", asyncio.Lock())

    async def _update(self, session_id: str, values: Mapping[str, Any]) -> None:
        try:
            await self.update_session(session_id, **values)
        except LookupError:
            if not self._is_overridden("update_session", session_id):
                raise
            await SessionManager.update_session(self, session_id, **values)

    def _is_overridden(self, method: str, session_id: str) -> bool:
        """Tell whether a lookup failed in a subclass that knows only sessions it has created.

        So does jupyter-server-documents', which has no room for a session that was recovered.
        """
        if getattr(type(self), method) is getattr(SessionManager, method):
            return False
        self.log.warning("%s does not know session %s.", type(self).__name__, session_id)
        return True

    async def _start_other(self, session: Model, kernel_name: str) -> str:
        try:
            return await self.start_kernel_for_session(
                session["id"],
                path=session["path"],
                name=session["name"],
                type=session["type"],
                kernel_name=KernelName(kernel_name),
            )
        except web.HTTPError:
            raise
        except Exception as error:
            raise KernelStartError(kernel_name, str(error)) from error

    async def _end_replaced(self, kernel_id: str) -> None:
        """End the kernel that a session had; with pending kernels nobody waits for that."""
        ending = self._tasks.spawn(self._end_kernel(kernel_id))
        if not getattr(self.kernel_manager, "use_pending_kernels", False):
            await ending

    async def _end_unused(self, kernel_id: str) -> None:
        """End a kernel that was started for a change which is not made."""
        if kernel_id in self.kernel_manager and not self._workspace.registry.of_kernel(kernel_id):
            await self._end_kernel(kernel_id, now=True)

    async def _end_kernel(self, kernel_id: str, now: bool = False) -> None:
        try:
            await ensure_async(self.kernel_manager.shutdown_kernel(kernel_id, now=now))
        except Exception:  # what was asked for is done, or refused, all the same
            self.log.exception("Kernel %s, of no session, could not be shut down", kernel_id)
