"""A server extension that answers what it was given: the least that any answer costs there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

PATH: Final = "/benchmarks/constant"


class ConstantHandler(APIHandler):
    """PUT takes the answer of each GET and PATCH that follow."""

    def initialize(self, answers: list[bytes]) -> None:
        """Take the server's answer, which is the last of the list."""
        self._answers = answers

    @web.authenticated
    def put(self) -> None:
        self._answers[:] = [self.request.body]
        self.set_status(204)

    @web.authenticated
    def get(self) -> None:
        self.finish(self._answers[-1])

    @web.authenticated
    def patch(self) -> None:
        self.finish(self._answers[-1])


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    path = url_path_join(serverapp.base_url, PATH)
    serverapp.web_app.add_handlers(".*$", [(path, ConstantHandler, {"answers": [b""]})])
