"""The extension: its traits, and the wiring. Nothing else."""

from __future__ import annotations

import os
from datetime import timedelta

from jupyter_events import EventLogger
from jupyter_server.extension.application import ExtensionApp, ExtensionAppJinjaMixin
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.ioloop import IOLoop
from traitlets import CaselessStrEnum, Float, Integer, Unicode, default
from traitlets.config import Config

from . import metrics
from .api import admin, core
from .composition import compose_connections, compose_kernels, compose_sessions, configured_database
from .drain import RequestDrain, stop_on_interrupt
from .events import Emitter
from .folder import STATE_DIR, absolute
from .keeper.protocol import DEFAULT_LIMIT, DEFAULT_TOTAL
from .kernels.manager import DurableMappingMixin
from .kernels.recording import RecordingMixin
from .listening import keep_port_open
from .options import invalid
from .page import handler as page
from .retention import Retention
from .sessions.manager import SessionManager
from .workspace import Workspace

DAY = 24 * 3600
CENTURY = 36_500 * DAY


class SessionsApp(ExtensionAppJinjaMixin, ExtensionApp):
    """Sessions and kernels that survive the server."""

    name = "jupyter_sessions_ext"
    static_paths = [page.STATIC]
    template_paths = [page.TEMPLATES]
    _told: frozenset[str] = frozenset()
    """Options whose values are not valid, which was logged."""
    _drain: RequestDrain | None = None

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

    dormant_retention = Integer(
        30 * DAY,
        min=0,
        max=CENTURY,
        config=True,
        help=(
            "For how many seconds a dormant session is kept: one without a kernel, which comes "
            "back under its id when its path is opened. 0: for ever."
        ),
    )

    history_retention = Integer(
        365 * DAY,
        min=0,
        max=CENTURY,
        config=True,
        help="For how many seconds the history of sessions is kept. 0: for ever.",
    )

    history_limit = Integer(
        100_000,
        min=0,
        config=True,
        help="How many events of the history are kept, the latest. 0: all.",
    )

    journal_limit = Integer(
        DEFAULT_LIMIT,
        min=1 << 16,
        max=1 << 30,
        config=True,
        help=(
            "How many bytes are kept of what each kernel has sent, the latest, for clients that "
            "are not connected and for transcripts."
        ),
    )

    journal_total = Integer(
        DEFAULT_TOTAL,
        min=1 << 16,
        config=True,
        help="How many bytes are kept of what all kernels have sent; the largest give way.",
    )

    orphan_timeout = Float(
        DAY,
        min=0,
        config=True,
        help=(
            "After how many seconds kernels are ended that no server has come back for; their "
            "sessions turn dormant. 0: never."
        ),
    )

    def _find_my_config(self, cfg: Config) -> Config:
        """Leave out what is no valid value: with the default for it sessions are kept, at least."""
        found: Config = super()._find_my_config(cfg)
        for name, wrong in invalid(self, found).items():
            if name not in self._told:  # it is read more than once
                self.log.error("%s: its default is used. See `jupyter sessions check`.", wrong)
            self._told |= {name}
            del found[name]
        return found

    @property
    def _retention(self) -> Retention:
        dormant, history = self.dormant_retention, self.history_retention
        return Retention(
            dormant=timedelta(seconds=dormant) if dormant else None,
            history=timedelta(seconds=history) if history else None,
            events=self.history_limit or None,
        )

    @property
    def _server(self) -> ServerApp:
        assert self.serverapp is not None
        return self.serverapp

    @property
    def _bus(self) -> EventLogger:
        assert self._server.event_logger is not None  # it precedes every extension
        return self._server.event_logger

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
            state_dir=str(absolute(self.state_dir)),
            database=configured_database(serverapp.config),
            kernels_on_stop=self.kernels_on_stop,
            retention=self._retention,
            journal_limit=self.journal_limit,
            journal_total=self.journal_total,
            orphan_timeout=self.orphan_timeout,
        )
        self._workspace.emit = Emitter(self._bus)
        metrics.follow(self._workspace.reading)
        self._compose("kernel_manager_class", AsyncMappingKernelManager)
        self._compose("session_manager_class", SessionManager)
        self._compose("kernel_websocket_connection_class", ZMQChannelsWebsocketConnection)

    def initialize_handlers(self) -> None:
        """Answer ``/api/sessions`` where the server's session manager is ours."""
        manager = self._server.session_manager
        if isinstance(self._server.kernel_manager, RecordingMixin):
            keep_port_open(self._server, self._server.kernel_manager)
        if isinstance(manager, SessionManager):
            self.handlers.extend(core.handlers + page.handlers)
            administration = admin.Administration.of(
                self._workspace, manager, self._server.root_dir, self._server.base_url
            )
            self.handlers.extend((*route, {"admin": administration}) for route in admin.handlers)
            manager.follow_documents(self._bus)
            manager.start_upkeep()
            # When the loop runs, every extension is there that a user's class may need.
            IOLoop.current().add_callback(manager.introduce_sessions)

    async def _start_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        if isinstance(serverapp.kernel_manager, RecordingMixin):
            self._drain = RequestDrain(serverapp.http_server)
            stop_on_interrupt(serverapp)

    async def stop_extension(self) -> None:
        """Let requests in flight end, but for the one that stops the server over REST."""
        if self._drain is not None:
            is_told_by_signal = getattr(self._server, "_stopping", False)
            await self._drain.drain(but=0 if is_told_by_signal else 1)

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
            compose_kernels(current, self._workspace)
            if trait == "kernel_manager_class"
            else compose_connections(current)
            if trait == "kernel_websocket_connection_class"
            else compose_sessions(current, self._workspace)
        )
        if composed is not current:
            setattr(self._server, trait, composed)
        elif trait == "session_manager_class" and not issubclass(current, SessionManager):
            self.log.warning(
                "%s uses the synchronous cursor of jupyter_server's SessionManager, which ours "
                "does not have: sessions are left to it, and are not kept by jupyter_sessions_ext. "
                "Kernels are; to keep their sessions too, set SessionManager.database_filepath.",
                current.__name__,
            )
        elif trait == "kernel_manager_class" and not issubclass(current, DurableMappingMixin):
            self.log.warning(
                "%s is not asynchronous: its kernels end with the server; sessions are kept.",
                current.__name__,
            )
