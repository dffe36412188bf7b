"""``/api/sessions``: jupyter_server's contract, answered by our session manager."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar, cast

from jupyter_client.jsonutil import json_default
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.multikernelmanager import DuplicateKernelError
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_escape, url_path_join
from tornado import web

from ..errors import KernelStartError
from ..sessions.manager import SessionManager
from ..wire import MOST_BYTES, InvalidBodyError, decode
from .schemas import ChangeSession, CreateSession

RESOURCE = "sessions"
"""What an authorizer is asked about: jupyter_server's own name for it."""

_ID = r"\w+-\w+-\w+-\w+-\w+"
"""The form of ids in jupyter_server's addresses."""

T = TypeVar("T")


class _SessionsHandler(APIHandler):
    """What both handlers need."""

    auth_resource = RESOURCE

    @property
    def sessions(self) -> SessionManager:
        """The server's session manager, which is ours where these handlers are."""
        return cast(SessionManager, self.session_manager)

    def read(self, cls: type[T]) -> T:
        """Return the request's body.

        :raises tornado.web.HTTPError: 400, it is not what it must be; 413, it is too large
        """
        if len(self.request.body) > MOST_BYTES:
            raise web.HTTPError(413, f"body: larger than {MOST_BYTES} bytes")
        try:
            return decode(self.request.body, cls)
        except InvalidBodyError as error:
            raise web.HTTPError(400, str(error)) from error

    def answer(self, value: Any) -> None:
        """Send a model, written as jupyter_server does."""
        self.finish(json.dumps(value, default=json_default))

    def answer_unavailable(self, message: str, short_message: str) -> None:
        """Send 501 in the form that clients show to their users."""
        self.log.warning("%s", message)
        self.set_status(501)
        self.answer({"message": message, "short_message": short_message})


class SessionRootHandler(_SessionsHandler):
    """List and open sessions."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """List the live sessions."""
        self.finish(await self.sessions.list_json())

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def post(self) -> None:
        """Open a session: return the path's, or revive it, or create it."""
        body = self.read(CreateSession)
        if body.notebook:
            self.log.warning("Sessions API changed, see updated swagger docs")
        if not body.notebook:  # with which clients have always sent ids of any form
            self._check_kernel(body.kernel.id, body.kernel.name)
        try:
            model = await self.sessions.open_session(
                **body.values(), kernel_name=body.kernel.name or None, kernel_id=body.kernel.id
            )
        except NoSuchKernel as error:
            name = body.kernel.name or error.name
            self.answer_unavailable(
                f"The '{name}' kernel is not available. Please pick another suitable kernel "
                "instead, or install that kernel.",
                f"{name} not found",
            )
            return
        except web.HTTPError:
            raise  # an id that is taken, for one, is already a 409
        except DuplicateKernelError as error:
            raise web.HTTPError(409, str(error)) from error
        except Exception as error:
            raise web.HTTPError(500, str(error)) from error
        where = url_path_join(self.base_url, "api", "sessions", url_escape(model["id"]))
        self.set_header("Location", where)
        self.set_status(201)
        self.answer(model)

    def _check_kernel(self, kernel_id: str | None, name: str | None) -> None:
        """Refuse an id for a new kernel under which no client could reach it."""
        if kernel_id is not None and kernel_id not in self.kernel_manager:
            if not re.fullmatch(_ID, kernel_id, re.ASCII):
                raise web.HTTPError(400, "kernel.id: neither a kernel that runs nor a UUID")
            if name == "":
                raise web.HTTPError(400, "kernel.name: must not be empty for a new kernel")


class SessionHandler(_SessionsHandler):
    """Read, change and delete a session."""

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session_id: str) -> None:
        """Read a session."""
        self.finish(await self.sessions.session_json(session_id))

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def patch(self, session_id: str) -> None:
        """Change a session's path, name, type or kernel."""
        body = self.read(ChangeSession)
        if body.notebook:
            self.log.warning("Sessions API changed, see updated swagger docs")
        kernel_name = body.kernel.name if body.kernel.id is None else None
        try:
            model = await self.sessions.change_session(session_id, body.values(), kernel_name)
        except KernelStartError as error:
            self.answer_unavailable(str(error), f"Error starting kernel {error.kernel_name}")
            return
        self.answer(model)

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def delete(self, session_id: str) -> None:
        """Delete a session and end its kernel."""
        await self.sessions.end_session(session_id)
        self.set_status(204)
        self.finish()


handlers: list[tuple[str, type[web.RequestHandler]]] = [
    (rf"/api/sessions/(?P<session_id>{_ID})", SessionHandler),
    (r"/api/sessions", SessionRootHandler),
]
