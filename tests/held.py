"""Classes of a server in which a test holds starts and ends of kernels, and sees requests."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_server.services.kernels.kernelmanager import (
    AsyncMappingKernelManager,
    ServerKernelManager,
)
from traitlets import default

from jupyter_sessions_ext.sessions.manager import SessionManager

SIGNS = "SIGNS"
"""The variable that names the folder in which a test and its server leave signs."""

_count = itertools.count()


def sign(*words: str) -> None:
    (Path(os.environ[SIGNS]) / ".".join(words)).touch()


async def pass_gate(what: str, kernel_id: str) -> None:
    """Wait while the test holds this; say that it was reached.

    :raises OSError: the test has it fail
    """
    folder = Path(os.environ[SIGNS])
    sign("reached", what, kernel_id)
    fail = folder / f"fail.{what}.{kernel_id}"
    go_on = folder / f"go.{what}.{kernel_id}"
    while (folder / f"hold.{what}").exists() and not go_on.exists():
        if fail.exists():
            raise OSError(errno.EMFILE, "injected")
        await asyncio.sleep(0.01)  # it is another process that opens it


class HeldKernel(ServerKernelManager):
    """A kernel whose start and end wait for the test, and which says when it runs."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        sign("begun", self.kernel_id)
        await pass_gate("start", self.kernel_id)
        await super()._async_launch_kernel(kernel_cmd, **kw)
        sign("launched", self.kernel_id)
        sign("process", self.kernel_id, str(next(_count)))

    async def _async_request_shutdown(self, restart: bool = False) -> None:
        if not restart:
            await pass_gate("end", self.kernel_id)
        await super()._async_request_shutdown(restart=restart)


class HeldKernels(AsyncMappingKernelManager):
    """The kernels of such a server; it says when one is gone."""

    @default("kernel_manager_class")
    def _default_kernel_manager_class(self) -> str:
        return "held.HeldKernel"

    def remove_kernel(self, kernel_id: str) -> Any:
        sign("ended", kernel_id)
        return super().remove_kernel(kernel_id)


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Say when something is asked for, and when that is done."""
    number = str(next(_count))
    sign("asked", what, number)
    try:
        yield
    finally:
        sign("done", what, number)


class WatchedSessions(SessionManager):
    """Says what it is asked for, and when it has done it."""

    async def open_session(self, **wanted: Any) -> Any:
        with told("POST"):
            return await super().open_session(**wanted)

    async def change_session(self, session_id: str, *changes: Any) -> Any:
        with told("PATCH"):
            return await super().change_session(session_id, *changes)

    async def end_session(self, session_id: str) -> None:
        with told("DELETE"):
            await super().end_session(session_id)

    async def document_renamed(self, source: str, target: str) -> None:
        with told("renamed"):
            await super().document_renamed(source, target)

    async def document_deleted(self, path: str) -> None:
        with told("deleted"):
            await super().document_deleted(path)
