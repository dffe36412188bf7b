"""Where the server listens: on sockets that the keeper holds open when the server is gone."""

from __future__ import annotations

from typing import Any

from jupyter_server.serverapp import ServerApp
from tornado.netutil import bind_sockets

from .keeper.takeover import free_port, take_port
from .kernels.recording import RecordingMixin


def keep_port_open(server: ServerApp, mapping: RecordingMixin) -> None:
    """Have a server's port outlive it, where that can be.

    jupyter_server has no public way to say on which sockets it listens: two of its own methods are
    replaced. Unix sockets and TLS, of which the keeper has no certificate, are as without it.
    """
    workspace = mapping.workspace
    find, bind = (getattr(server, name, None) for name in _REPLACED)
    if server.sock or server.ssl_options or find is None or bind is None:
        return
    taken: list[Any] = []

    def find_port() -> None:
        address = (server.ip, server.port)
        if workspace.place is not None:
            taken.extend(take_port(workspace.place.keeper, address))
        if not taken:
            free_port(workspace.all_keepers(), address)
            find()

    def bind_port() -> bool:
        try:
            sockets = taken or bind_sockets(server.port, server.ip)
        except OSError:
            return bool(bind())  # it says what is wrong
        if workspace.keeps_kernels:
            mapping.keeper.hold_port((server.ip, server.port), sockets)
        server.http_server.add_sockets(sockets)
        return True

    for name, method in zip(_REPLACED, (find_port, bind_port), strict=True):
        setattr(server, name, method)


_REPLACED = ("_find_http_port", "_bind_http_server_tcp")
