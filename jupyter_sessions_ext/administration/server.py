"""The server: what it is, whether it can keep anything, and what its kernels write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime

import msgspec
from tornado import web

from .. import __version__
from ..errors import StoreUnavailableError
from ..folder import Place
from ..kernels.logs import end_of_log
from ..models import SessionRecord, now
from ..storage.migrations import LATEST
from ..workspace import Workspace
from .schemas import Health, ServerInfo, StoreInfo, WorkspaceInfo
from .transcript import NothingRecordedError, read_transcript, write_file

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


class Transcripts:
    """Reads transcripts, one after the other: each may need some times 16 MiB of memory."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._turn = asyncio.Lock()

    async def read(
        self, session: SessionRecord, *, is_running: bool, since: datetime | None, is_file: bool
    ) -> bytes:
        """Return what a session's kernel ran and printed, as a notebook in JSON.

        :param is_running: whether the kernel runs
        :param since: leave out what was run before
        :param is_file: as people read it, for a file
        :raises tornado.web.HTTPError: 409, nothing of it is recorded
        """

        def read(place: Place) -> bytes:
            notebook = read_transcript(
                place,
                session.kernel_id or "",
                kernel_name=session.kernel_name,
                is_running=is_running,
                since=since,
            )
            return write_file(notebook) if is_file else msgspec.json.encode(notebook)

        place = self._workspace.place
        about = f"session {session.session_id}'s kernel"
        if place is None or not self._workspace.keeps_kernels:
            raise web.HTTPError(
                409, f"Nothing is recorded of {about}: kernels are not kept here. The log says why"
            )
        try:
            async with self._turn:
                return await asyncio.to_thread(read, place)
        except NothingRecordedError as error:
            reason = "yet: run a cell, then ask again"
            if not is_running:
                reason = "any more, for it is gone: revive the session, which is recorded then"
            raise web.HTTPError(409, f"Nothing is recorded of {about} {reason}") from error
