"""What all handlers of ``/sessions/api/v1`` work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from jupyter_server.base.handlers import APIHandler
from tornado import web

from ..administration.actions import Actions, message_of
from ..administration.catalog import Catalog
from ..administration.items import Items, digest, version_of
from ..administration.server import Transcripts
from ..administration.transfer import Importer
from ..errors import StoreUnavailableError
from ..sessions.manager import SessionManager
from ..wire import MOST_BYTES, InvalidBodyError, decode
from ..workspace import Workspace
from .openapi import Error
from .parameters import read_parameters

RESOURCE = "sessions_admin"
"""What an authorizer is asked about."""

T = TypeVar("T")


@dataclass(frozen=True)
class Administration:
    """What the handlers of one server work with."""

    workspace: Workspace
    root_dir: str
    actions: Actions
    items: Items
    catalog: Catalog
    importer: Importer
    transcripts: Transcripts

    @classmethod
    def of(
        cls, workspace: Workspace, sessions: SessionManager, root_dir: str, base_url: str
    ) -> Administration:
        """Return what is needed for a server's session manager."""
        return cls(
            workspace=workspace,
            root_dir=root_dir,
            actions=Actions(workspace, sessions),
            items=Items(workspace, sessions.kernel_manager, base_url),
            catalog=Catalog(),
            importer=Importer(workspace),
            transcripts=Transcripts(workspace),
        )


class AdminHandler(APIHandler):
    """What all handlers need."""

    auth_resource = RESOURCE

    def initialize(self, admin: Administration) -> None:
        """Take what the server's handlers share."""
        self.admin = admin
        self._etag: str | None = None

    def query(self, cls: type[T]) -> T:
        """Return the request's parameters.

        :raises tornado.web.HTTPError: 400, they are not what they must be
        """
        try:
            return read_parameters(self.request.query_arguments, cls)
        except InvalidBodyError as error:
            raise web.HTTPError(400, str(error)) from error

    def body(self, cls: type[T]) -> T:
        """Return the request's body.

        :raises tornado.web.HTTPError: 400, it is not what it must be; 413, it is too large
        """
        self.refuse_larger(MOST_BYTES)
        try:
            return decode(self.request.body, cls)
        except InvalidBodyError as error:
            raise web.HTTPError(400, str(error)) from error

    def refuse_larger(self, size: int) -> None:
        """Refuse a body of more bytes.

        :raises tornado.web.HTTPError: 413, it is
        """
        if len(self.request.body) > size:
            raise web.HTTPError(413, f"body: larger than {size} bytes")

    def answer(self, value: Any) -> None:
        """Send a struct."""
        self.finish(msgspec.json.encode(value))

    async def answer_item(self, session_id: str) -> None:
        """Send a session's item, with the tag that ``If-Match`` takes.

        :raises tornado.web.HTTPError: 404, there is no such session
        """
        kernels = await self.admin.items.kernels()
        session = self.admin.actions.find(session_id)
        [item] = await self.admin.items.sessions([session], kernels)
        text = bytes(item)
        version = version_of(session)
        self._etag = f'"{version}-{digest(text)}"'
        if self.request.method != "GET":  # of which tornado takes care
            self.set_etag_header()
        self.finish(text)

    def compute_etag(self) -> str | None:
        """Return the tag of what is sent."""
        return self._etag or super().compute_etag()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Tell of what is wrong as jupyter_server does, and of a store that cannot be used, too."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, StoreUnavailableError):
            error = web.HTTPError(503, str(error))
            self.set_status(503)
        if not isinstance(error, web.HTTPError):
            super().write_error(status_code, **kwargs)
            return
        message = message_of(error)
        self.log.warning("wrote error: %r", message, exc_info=error.status_code == 500)
        self.set_header("Content-Type", "application/json")
        self.answer(Error(message=message, reason=error.reason))
