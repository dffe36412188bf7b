"""Session managers on their own, over kernels without processes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_server.services.contents.manager import ContentsManager
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager
from jupyter_server.services.sessions.sessionmanager import KernelName
from tornado import web
from traitlets import Unicode
from traitlets.config import Configurable

from jupyter_sessions_ext.sessions.manager import SessionManager
from jupyter_sessions_ext.workspace import Workspace

PYTHON = KernelName("python")
LAST_ACTIVITY = datetime(2024, 1, 2, tzinfo=timezone.utc)


class FakeKernel(SimpleNamespace):
    """What is read of a kernel, without a process."""

    def update_env(self, *, env: dict[str, str]) -> None:
        self.env = env


class FakeKernels(MappingKernelManager):
    """A kernel manager without processes, whose starts and ends can be held up and fail."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = (f"kernel-{n}" for n in itertools.count())
        self.started: list[str] = []
        self.ended: list[str] = []
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.one_ended = asyncio.Event()
        self.failure: Exception | None = None

    async def start_kernel(  # type: ignore[override]
        self, *, kernel_id: str | None = None, kernel_name: str | None = None, **_: Any
    ) -> str:
        await self.pass_gate()
        kernel_id = kernel_id or next(self.ids)
        self._kernels[kernel_id] = FakeKernel(
            kernel_name=kernel_name, last_activity=LAST_ACTIVITY, execution_state="idle", env={}
        )
        self._kernel_connections[kernel_id] = 0
        self.started.append(kernel_id)
        return kernel_id

    async def shutdown_kernel(  # type: ignore[override]
        self, kernel_id: str, now: bool = False
    ) -> None:
        await self.pass_gate()
        self.die(kernel_id)
        self.ended.append(kernel_id)
        self.one_ended.set()

    async def pass_gate(self) -> None:
        self.asked.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure

    def die(self, kernel_id: str) -> None:
        """Lose a kernel as when it is culled."""
        del self._kernels[kernel_id]


class MakesManagers:
    """Makes session managers that are closed after the test."""

    def __init__(self, kernels: FakeKernels) -> None:
        self.kernels = kernels
        self.made: list[SessionManager] = []

    def __call__(self, cls: type[SessionManager] = SessionManager, **traits: Any) -> SessionManager:
        manager = cls(kernel_manager=self.kernels, contents_manager=ContentsManager(), **traits)
        self.made.append(manager)
        return manager


class Server(Configurable):
    """What a session manager reads of its server."""

    root_dir = Unicode("")


def compose(make_manager: MakesManagers, workspace: Workspace) -> SessionManager:
    """Make a manager as the extension does."""
    cls = type("LastingSessionManager", (SessionManager,), {"workspace": workspace})
    return make_manager(cls, parent=Server())


async def create(manager: SessionManager, path: str = "a.ipynb", **wanted: Any) -> dict[str, Any]:
    wanted = {"type": "notebook", "kernel_name": PYTHON, **wanted}
    return await manager.create_session(path=path, **wanted)


async def stored(manager: SessionManager) -> list[tuple[Any, ...]]:
    cursor = await manager.cursor
    await cursor.execute("SELECT session_id, path, kernel_id FROM session ORDER BY rowid")
    return [tuple(row) for row in await cursor.fetchall()]


def rows(*models: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(model["id"], model["path"], model["kernel"]["id"]) for model in models]


@contextlib.asynccontextmanager
async def refusing(manager: SessionManager, action: str = "INSERT") -> AsyncIterator[None]:
    """Have the database refuse to change sessions, as when its disk is full."""
    connection = await manager.connection
    await connection.execute(
        f"CREATE TEMP TRIGGER refuse BEFORE {action} ON session "
        "BEGIN SELECT RAISE(ABORT, 'injected'); END"
    )
    yield
    await connection.execute("DROP TRIGGER refuse")


@contextlib.asynccontextmanager
async def refused(manager: SessionManager, action: str = "INSERT") -> AsyncIterator[None]:
    """Expect that what the database refuses would be answered with 503."""
    async with refusing(manager, action):
        with error(503):
            yield


@contextlib.contextmanager
def error(status: int) -> Iterator[pytest.ExceptionInfo[web.HTTPError]]:
    """Expect that a request would be answered with this status."""
    with pytest.raises(web.HTTPError) as caught:
        yield caught
    assert caught.value.status_code == status, caught.value
