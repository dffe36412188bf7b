"""What runs in a server whose kernels are minimal: kernelspecs, and routes that cull and list."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_core.paths import jupyter_data_dir
from jupyter_core.utils import ensure_async
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.routing import RuleRouter
from traitlets import default

from jupyter_sessions_ext.keeper import supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_server.serverapp import ServerApp


supervisor.SOON, supervisor.LONGEST_PAUSE = 0, 2  # tests kill keepers again and again


class KernelSpecs(KernelSpecManager):
    """Those of the home alone: ``allowed_kernelspecs`` hides others, but lets them be started."""

    ensure_native_kernel = False

    @default("kernel_dirs")
    def _kernel_dirs_default(self) -> list[str]:
        return [os.path.join(jupyter_data_dir(), "kernels")]

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if kernel_name not in self.find_kernel_specs():
            raise NoSuchKernel(kernel_name)
        return super().get_kernel_spec(kernel_name)


class CullHandler(APIHandler):
    """POST makes a kernel look idle for long, and has the server's own culling judge it.

    With ``sign`` the loop gets no time before another process has made that file.
    """

    @web.authenticated
    async def post(self, kernel_id: str) -> None:
        kernels = self.kernel_manager
        kernel: Any = kernels.get_kernel(kernel_id)
        kernel.last_activity -= timedelta(seconds=kernels.cull_idle_timeout + 1)
        if sign := self.get_argument("sign", ""):
            os.close(os.open(f"{sign}.begun", os.O_CREAT))
            until = time.monotonic() + 20
            while not os.path.exists(sign) and time.monotonic() < until:  # noqa: ASYNC240
                time.sleep(0.01)  # noqa: ASYNC251 - that is what is meant
        await ensure_async(kernels.cull_kernel_if_idle(kernel_id))
        self.set_status(204)


class WaitHandler(APIHandler):
    """GET and POST leave a sign that they have begun, and wait for another; then tell the pid."""

    @web.authenticated
    async def get(self) -> None:
        sign = self.get_argument("sign")
        os.close(os.open(f"{sign}.begun", os.O_CREAT))
        while not os.path.exists(sign):  # noqa: ASYNC110, ASYNC240 - another process makes it
            await asyncio.sleep(0.01)
        self.finish(json.dumps(os.getpid()) + " " * int(self.get_argument("size", "0")))

    post = get


class UnlinkHandler(APIHandler):
    """POST ends the server's link with its keeper, as a fault on either side would."""

    @web.authenticated
    async def post(self) -> None:
        kernels: Any = self.kernel_manager
        kernels.keeper._link._socket.shutdown(socket.SHUT_RDWR)
        self.set_status(204)


class ChildHandler(APIHandler):
    """POST starts a program as one that closes no files does, and tells which ports it has."""

    @web.authenticated
    async def post(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PORTS, close_fds=False, stdout=asyncio.subprocess.PIPE
        )
        self.finish((await process.communicate())[0])


PORTS = """
import json, os, socket
ports = []
for file in os.listdir("/proc/self/fd"):
    try:
        if os.readlink(f"/proc/self/fd/{file}").startswith("socket:"):
            found = socket.socket(fileno=os.dup(int(file)))
            if found.family != socket.AF_UNIX:
                ports.append(found.getsockname()[1])
    except OSError:
        pass
print(json.dumps(ports))
"""


class RoutesHandler(APIHandler):
    """GET tells which handler of which module the server has for which pattern."""

    @web.authenticated
    def get(self) -> None:
        def found(router: Any) -> Iterator[tuple[str, str, str]]:
            for rule in router.rules:
                if isinstance(rule.target, RuleRouter):
                    yield from found(rule.target)
                elif isinstance(rule.target, type):
                    yield rule.matcher.regex.pattern, rule.target.__module__, rule.target.__name__

        self.finish(json.dumps([*found(self.application.default_router)]))


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    path = url_path_join(serverapp.base_url, r"/test/cull/([^/]+)")
    wait = url_path_join(serverapp.base_url, "/test/wait")
    routes = url_path_join(serverapp.base_url, "/test/routes")
    unlink = url_path_join(serverapp.base_url, "/test/unlink")
    serverapp.web_app.add_handlers(
        ".*$",
        [
            (path, CullHandler),
            (routes, RoutesHandler),
            (wait, WaitHandler),
            (unlink, UnlinkHandler),
            (url_path_join(serverapp.base_url, "/test/child"), ChildHandler),
        ],
    )
