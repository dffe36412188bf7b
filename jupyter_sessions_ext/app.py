"""The extension: its traits, and the wiring. Nothing else."""

from __future__ import annotations

import os
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets import CaselessStrEnum, Unicode, default
from traitlets.utils.importstring import import_item

from .api import core
from .folder import STATE_DIR
from .kernels.manager import DurableMappingMixin
from .sessions.manager import SessionManager
from .workspace import Workspace


class SessionsApp(ExtensionApp):
    """Sessions and kernels that survive the server."""

    name = "jupyter_sessions_ext"

    kernels_on_stop = CaselessStrEnum(
        ["keep", "shutdown"],
        config=True,
        help=(
            "What becomes of running kernels when the server is stopped (by a signal, by Ctrl-C, "
            "by `jupyter server stop` or over REST): 'keep' leaves them running for the next "
            "server, 'shutdown' ends them, and their sessions turn dormant. Default: 'keep'; under "
            "JupyterHub 'shutdown', where stopping a server is meant to free memory."
        ),
    )

    @default("kernels_on_stop")
    def _default_kernels_on_stop(self) -> str:
        return "shutdown" if os.environ.get("JUPYTERHUB_SERVICE_PREFIX") else "keep"

    state_dir = Unicode(
        config=True,
        help=(
            "The folder in which sessions and kernels are kept, one subfolder for each root "
            f"folder. Default: `{STATE_DIR}` in Jupyter's data folder. It holds kernels' keys: it "
            "must be its user's alone."
        ),
    )

    @default("state_dir")
    def _default_state_dir(self) -> str:
        return os.path.join(self._server.data_dir, STATE_DIR)

    @property
    def _server(self) -> ServerApp:
        assert self.serverapp is not None
        return self.serverapp

    def _link_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        super()._link_jupyter_server_extension(serverapp)
        if GatewayClient.instance(parent=serverapp).gateway_enabled:
            self.log.warning(
                "The kernels are a gateway's: jupyter_sessions_ext leaves sessions and kernels to "
                "jupyter_server."
            )
            return
        self._workspace = Workspace(
            self.log,
            state_dir=self.state_dir,
            database=_configured_database(serverapp),
            kernels_on_stop=self.kernels_on_stop,
        )
        self._compose("kernel_manager_class", AsyncMappingKernelManager)
        self._compose("session_manager_class", SessionManager)
        self.handlers = [*self.handlers, *core.handlers]

    def _compose(self, trait: str, unconfigured: type) -> None:
        """Put our class on the configured one, now and whenever another is configured.

        At link, another extension's configuration may still restore the user's own class.
        """
        server = self._server
        # Reading the trait's default here would fail: what it depends on is not there yet.
        configured = server.config.ServerApp.get(trait)
        current = getattr(server, trait) if configured is not None else unconfigured
        server.observe(lambda change: self._put(trait, change.new), names=[trait])
        self._put(trait, current)

    def _put(self, trait: str, current: type) -> None:
        composed = (
            _compose_kernels(current, self._workspace)
            if trait == "kernel_manager_class"
            else _compose_sessions(current, self._workspace)
        )
        if composed is not current:
            setattr(self._server, trait, composed)
        elif trait == "kernel_manager_class" and not issubclass(current, DurableMappingMixin):
            self.log.warning(
                "%s is not asynchronous: its kernels end with the server; sessions are kept.",
                current.__name__,
            )


def _compose_kernels(cls: type, workspace: Workspace) -> type:
    if issubclass(cls, DurableMappingMixin) or not issubclass(cls, AsyncMappingKernelManager):
        return cls
    return type(f"Durable{cls.__name__}", (DurableMappingMixin, cls), {"workspace": workspace})


def _compose_sessions(cls: type, workspace: Workspace) -> type:
    if getattr(cls, "workspace", None) is not None:
        return cls
    # A user's class comes first, for it calls ours through super(); ours alone would bypass it.
    bases = (cls,) if issubclass(cls, SessionManager) else (cls, SessionManager)
    return type(cls.__name__, bases, {"workspace": workspace})


def _configured_database(server: Any) -> str | None:
    """Return ``SessionManager.database_filepath`` where the user has set it."""
    cls = server.config.ServerApp.get("session_manager_class", SessionManager)
    cls = import_item(cls) if isinstance(cls, str) else cls
    for section in reversed(cls.section_names()):
        if "database_filepath" in server.config.get(section, {}):
            return str(server.config[section]["database_filepath"])
    return None
