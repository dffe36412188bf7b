"""``/sessions/api/v1``: what administrators see and do, over REST."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.utils import url_escape, url_path_join
from tornado import web

from ..administration import server
from ..administration.history import events_page, read_time
from ..administration.kernels import kernels_page
from ..administration.schemas import (
    Attachment,
    BulkAction,
    DeleteQuery,
    EventsQuery,
    Filter,
    KernelsQuery,
    LogQuery,
    NoQuery,
    SessionChange,
    SessionsQuery,
    TranscriptQuery,
)
from ..administration.transcript import FILE_TYPE, file_name
from ..administration.transfer import MOST_IMPORTED_BYTES, export
from ..models import EventFilter, now
from ..wire import InvalidBodyError
from .documents import admin_document
from .handler import RESOURCE, AdminHandler, Administration
from .openapi import JSON
from .parameters import versions

__all__ = ["RESOURCE", "Administration", "handlers"]

ROOT = r"/sessions/api/v1"
_ONE = rf"{ROOT}/sessions/(?P<session_id>[^/]+)"
_KERNEL = rf"{ROOT}/kernels/(?P<kernel_id>[^/]+)"


class SessionsHandler(AdminHandler):
    """The list of sessions."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """List sessions, live and dormant."""
        query = self.query(SessionsQuery)
        admin = self.admin
        kernels = await admin.items.kernels()
        try:
            page = admin.catalog.page(admin.workspace.registry, query, kernels)
        except InvalidBodyError as error:
            raise web.HTTPError(400, str(error)) from error
        items = await admin.items.sessions(page.sessions, kernels)
        self.answer({"items": items, "next": page.next, "total": page.total})


class SessionHandler(AdminHandler):
    """One session."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session_id: str) -> None:
        """Read a session."""
        self.query(NoQuery)
        await self.answer_item(session_id)

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def patch(self, session_id: str) -> None:
        """Change a session's path, name, type or kernel."""
        self.query(NoQuery)
        tags = self.request.headers.get("If-Match")
        expected = versions(tags) if tags is not None else None
        await self.admin.actions.change(session_id, self.body(SessionChange), expected)
        await self.answer_item(session_id)

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def delete(self, session_id: str) -> None:
        """Delete a session and, unless it is to be kept, end its kernel."""
        keep_kernel = self.query(DeleteQuery).keep_kernel
        await self.admin.actions.do("forget" if keep_kernel else "delete", session_id)
        self.set_status(204)
        self.finish()


class SessionActionHandler(AdminHandler):
    """What is done to one session."""

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def post(self, session_id: str, action: Any) -> None:
        """Revive a session, or interrupt or restart its kernel."""
        self.query(NoQuery)
        await self.admin.actions.do(action, session_id)
        await self.answer_item(session_id)


class LogHandler(AdminHandler):
    """What a session's kernel has written outside of cells."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session_id: str) -> None:
        """Read the end of it."""
        size = self.query(LogQuery).bytes
        session = self.admin.actions.find(session_id)
        token = getattr(self.identity_provider, "token", "")
        text = await server.log_of(self.admin.workspace, session, size, [token])
        self.finish(text, set_content_type="text/plain; charset=UTF-8")


class TranscriptHandler(AdminHandler):
    """What a session's kernel ran and printed."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session_id: str) -> None:
        """Send it as a notebook."""
        query = self.query(TranscriptQuery)
        try:
            since = read_time("since", query.since)
        except InvalidBodyError as error:
            raise web.HTTPError(400, str(error)) from error
        actions = self.admin.actions
        session = actions.find(session_id)
        is_file = query.format == "ipynb"
        text = await self.admin.transcripts.read(
            session, is_running=actions.is_live(session), since=since, is_file=is_file
        )
        if is_file:
            self.set_attachment_header(file_name(session.path))
        self.finish(text, set_content_type=FILE_TYPE if is_file else JSON)


class BulkHandler(AdminHandler):
    """One action on many sessions."""

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def post(self) -> None:
        """Do it, or tell what would be done."""
        self.query(NoQuery)
        wanted = self.body(BulkAction)
        ids = wanted.ids or await self._matching(wanted.filter or Filter())
        actions = self.admin.actions
        if wanted.dry_run:
            results = actions.try_all(wanted.action, ids)
        else:
            results = await actions.do_all(wanted.action, ids)
        self.answer(wanted.answered(results))

    async def _matching(self, wanted: Filter) -> list[str]:
        admin = self.admin
        kernels = await admin.items.kernels()
        found = admin.catalog.matching(admin.workspace.registry, wanted, kernels)
        return [session.session_id for session in found]


class KernelsHandler(AdminHandler):
    """The list of kernels."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """List the running kernels, with and without sessions."""
        query = self.query(KernelsQuery)
        try:
            self.answer(await kernels_page(self.admin.items, query))
        except InvalidBodyError as error:
            raise web.HTTPError(400, str(error)) from error


class KernelHandler(AdminHandler):
    """One kernel."""

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def delete(self, kernel_id: str) -> None:
        """End a kernel."""
        self.query(NoQuery)
        await self.admin.actions.end_kernel(kernel_id)
        self.set_status(204)
        self.finish()


class AttachHandler(AdminHandler):
    """A session for a kernel that runs."""

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def post(self, kernel_id: str) -> None:
        """Make it."""
        self.query(NoQuery)
        wanted = self.body(Attachment)
        session_id = await self.admin.actions.attach(
            kernel_id, path=wanted.path, type=wanted.type, name=wanted.name
        )
        self.set_status(201)
        self.set_header(
            "Location",
            url_path_join(self.base_url, ROOT, "sessions", url_escape(session_id)),
        )
        await self.answer_item(session_id)


class EventsHandler(AdminHandler):
    """The history."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """List events, the latest first."""
        query = self.query(EventsQuery)
        try:
            self.answer(await events_page(self.admin.workspace.store, query))
        except InvalidBodyError as error:
            raise web.HTTPError(400, str(error)) from error


class ExportHandler(AdminHandler):
    """Everything, to be kept elsewhere."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """Send it line by line."""
        self.query(NoQuery)
        workspace = self.admin.workspace
        await workspace.store.count_events(EventFilter())  # while an error can still be told
        self.set_header("Content-Type", "application/x-ndjson")
        name = f"jupyter-sessions-{now():%Y%m%dT%H%M%SZ}.ndjson"
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        async for part in export(workspace.registry, workspace.store):
            self.write(part)
            await self.flush()
        self.finish(set_content_type="application/x-ndjson")


class ImportHandler(AdminHandler):
    """What was exported."""

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def post(self) -> None:
        """Take over what is not there."""
        self.query(NoQuery)
        self.refuse_larger(MOST_IMPORTED_BYTES)
        try:
            self.answer(await self.admin.importer.take(self.request.body))
        except InvalidBodyError as error:
            raise web.HTTPError(400, str(error)) from error


class HealthHandler(AdminHandler):
    """Whether changes can be stored."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """Find out."""
        self.query(NoQuery)
        health = await server.health(self.admin.workspace)
        if health.status != "ok":
            self.set_status(503)
        self.answer(health)


class ServerHandler(AdminHandler):
    """The server."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """Tell of it."""
        self.query(NoQuery)
        started: datetime = self.settings["started"]
        self.answer(server.describe(self.admin.workspace, self.admin.root_dir, started))


class DocumentHandler(AdminHandler):
    """The description of all this."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """Send it."""
        self.query(NoQuery)
        self.answer(admin_document(self.base_url))


handlers: list[tuple[str, type[AdminHandler]]] = [
    (rf"{ROOT}/?", ServerHandler),
    (rf"{ROOT}/openapi\.json", DocumentHandler),
    (rf"{ROOT}/health", HealthHandler),
    (rf"{ROOT}/sessions", SessionsHandler),
    (rf"{ROOT}/sessions/actions", BulkHandler),
    (_ONE, SessionHandler),
    (rf"{_ONE}/(?P<action>revive|interrupt|restart)", SessionActionHandler),
    (rf"{_ONE}/log", LogHandler),
    (rf"{_ONE}/transcript", TranscriptHandler),
    (rf"{ROOT}/kernels", KernelsHandler),
    (_KERNEL, KernelHandler),
    (rf"{_KERNEL}/attach", AttachHandler),
    (rf"{ROOT}/events", EventsHandler),
    (rf"{ROOT}/export", ExportHandler),
    (rf"{ROOT}/import", ImportHandler),
]
