"""The server: what it is, whether it can keep anything, and what its kernels write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime

from tornado import web

from .. import __version__
from ..errors import StoreUnavailableError
from ..kernels.logs import end_of_log
from ..models import SessionRecord, now
from ..storage.migrations import LATEST
from ..workspace import Workspace
from .schemas import Health, ServerInfo, StoreInfo, WorkspaceInfo

HEALTH_TIMEOUT = 5.0
"""Seconds after which a store that does not answer counts as unavailable."""


def describe(workspace: Workspace, root_dir: str, started_at: datetime) -> ServerInfo:
    """Return what a server is, and what it keeps."""
    place = workspace.place
    return ServerInfo(
        version=__version__,
        workspace=WorkspaceInfo(
            key=place.key if place else None,
            root_dir=root_dir,
            folder=str(place.folder) if place else None,
        ),
        store=StoreInfo(backend=workspace.store.backend, location=workspace.store.location),
        schema=LATEST,
        started_at=started_at,
        uptime=round((now() - started_at).total_seconds(), 3),
    )


async def health(workspace: Workspace) -> Health:
    """Find out whether changes can be stored."""
    try:
        workspace.refuse_unusable()
        await asyncio.wait_for(workspace.store.check(), HEALTH_TIMEOUT)
    except asyncio.TimeoutError:
        return Health(status="unavailable", reason=f"{workspace.store.location} does not answer")
    except StoreUnavailableError as error:
        return Health(status="unavailable", reason=str(error))
    if workspace.refused:
        return Health(status="unavailable", reason=workspace.refused)
    return Health(status="ok")


async def log_of(
    workspace: Workspace, session: SessionRecord, size: int, tokens: Iterable[str]
) -> str:
    """Return the end of what a session's kernel wrote outside of cells, without secrets.

    :param size: bytes at most
    :param tokens: of the server
    :raises tornado.web.HTTPError: 404, there is none, or not any more
    """
    place, kernel_id = workspace.place, session.kernel_id
    if place is None or not kernel_id:
        raise web.HTTPError(404, f"No log is kept of session {session.session_id}'s kernel")
    record = workspace.registry.kernels.get(kernel_id)
    try:
        return await asyncio.to_thread(
            end_of_log,
            place,
            kernel_id,
            record,
            size,
            kernel_name=session.kernel_name,
            tokens=tokens,
        )
    except FileNotFoundError as error:
        raise web.HTTPError(
            404, f"There is no log of session {session.session_id}'s kernel any more"
        ) from error
