"""Our manager classes together with those that a user configures."""

from __future__ import annotations

from types import FunctionType

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from jupyter_server.services.sessions.sessionmanager import SessionManager as StockSessionManager
from traitlets.config import Config
from traitlets.utils.importstring import import_item

from .host import POSIX
from .kernels.manager import DurableMappingMixin
from .sessions.manager import SessionManager
from .storage.sqlite import MEMORY
from .workspace import Workspace

if POSIX:
    from .kernels.websocket import KeptConnectionMixin


def compose_kernels(cls: type, workspace: Workspace) -> type:
    """Return a kernel manager class whose kernels last; itself, if it is or if they cannot."""
    if issubclass(cls, DurableMappingMixin) or not issubclass(cls, AsyncMappingKernelManager):
        return cls
    return type(f"Durable{cls.__name__}", (DurableMappingMixin, cls), {"workspace": workspace})


def compose_connections(cls: type) -> type:
    """Return a class for clients' connections that goes over the keeper; itself, if it cannot."""
    if (
        not POSIX
        or issubclass(cls, KeptConnectionMixin)
        or not issubclass(cls, ZMQChannelsWebsocketConnection)
    ):
        return cls
    return type(f"Kept{cls.__name__}", (KeptConnectionMixin, cls), {})


def compose_sessions(cls: type, workspace: Workspace) -> type:
    """Return a session manager class that keeps sessions; itself, if it is or if it cannot."""
    if getattr(cls, "workspace", None) is not None or needs_cursor(cls):
        return cls
    # A user's class comes first, for it calls ours through super(); ours alone would bypass it.
    bases = (cls,) if issubclass(cls, SessionManager) else (cls, SessionManager)
    return type(cls.__name__, bases, {"workspace": workspace})


def needs_cursor(cls: type) -> bool:
    """Tell whether a user's class runs SQL on the synchronous cursor, as jupyter_server's does.

    So does jupyter_server_synchronizer's.
    """
    if issubclass(cls, SessionManager):
        return False
    stock = StockSessionManager
    own = [c for c in cls.__mro__ if issubclass(c, stock) and c is not stock]
    return any(
        {"cursor", "_cursor", "connection", "_connection"} & set(function.__code__.co_names)
        for c in own
        for function in vars(c).values()
        if isinstance(function, FunctionType)
    )


def configured_database(config: Config) -> str | None:
    """Return ``SessionManager.database_filepath`` where the user has set it for us to use."""
    cls = config.ServerApp.get("session_manager_class", SessionManager)
    cls = import_item(cls) if isinstance(cls, str) else cls
    for section in reversed(cls.section_names()):
        if "database_filepath" in config.get(section, {}):
            path = str(config[section]["database_filepath"])
            # A manager that writes to it itself, on the loop, would stop the loop in the middle of
            # our transaction, and wait in vain for its end.
            return None if needs_cursor(cls) and path != MEMORY else path
    return None
