"""The session manager on its own, as other packages make one: jupyter_server's, made durable."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_server.services.contents.manager import ContentsManager
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager
from jupyter_server.services.sessions.sessionmanager import KernelName, ModelName
from jupyter_server.services.sessions.sessionmanager import SessionManager as StockSessionManager
from tornado import web
from traitlets import TraitError, Unicode
from traitlets.config import Configurable

from jupyter_sessions_ext.models import KernelPhase, SessionRecord, SessionState
from jupyter_sessions_ext.sessions.manager import SessionManager
from jupyter_sessions_ext.storage.migrations import LATEST
from jupyter_sessions_ext.workspace import Workspace, new_kernel

PYTHON = KernelName("python")
COLUMNS = ["session_id", "path", "name", "type", "kernel_id"]
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


@pytest.fixture
def kernels() -> FakeKernels:
    return FakeKernels()


class MakesManagers:
    """Makes session managers that are closed after the test."""

    def __init__(self, kernels: FakeKernels) -> None:
        self.kernels = kernels
        self.made: list[SessionManager] = []

    def __call__(self, cls: type[SessionManager] = SessionManager, **traits: Any) -> SessionManager:
        manager = cls(kernel_manager=self.kernels, contents_manager=ContentsManager(), **traits)
        self.made.append(manager)
        return manager


@pytest.fixture
def make_manager(kernels: FakeKernels) -> Iterator[MakesManagers]:
    make = MakesManagers(kernels)
    yield make
    for manager in make.made:
        manager.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture(params=["memory", "file"])
def manager(
    request: pytest.FixtureRequest, make_manager: MakesManagers, file: Path
) -> SessionManager:
    """Return a manager with jupyter_server's default database, and one with a file."""
    return make_manager(database_filepath=str(file)) if request.param == "file" else make_manager()


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


@contextlib.contextmanager
def error(status: int) -> Iterator[pytest.ExceptionInfo[web.HTTPError]]:
    """Expect that a request would be answered with this status."""
    with pytest.raises(web.HTTPError) as caught:
        yield caught
    assert caught.value.status_code == status


# -------------------------------------------------------------------------- create


@pytest.mark.asyncio
async def test_a_created_session_has_jupyter_servers_model(manager: SessionManager) -> None:
    model = await create(manager, "folder/a.ipynb", name=ModelName("a.ipynb"))
    assert model == {
        "id": model["id"],
        "path": "folder/a.ipynb",
        "name": "a.ipynb",
        "type": "notebook",
        "kernel": {
            "id": "kernel-0",
            "name": "python",
            "last_activity": "2024-01-02T00:00:00Z",
            "execution_state": "idle",
            "connections": 0,
        },
        "notebook": {"path": "folder/a.ipynb", "name": "a.ipynb"},
    }
    assert await manager.get_session(session_id=model["id"]) == model
    assert await manager.list_sessions() == [model]


@pytest.mark.asyncio
async def test_the_models_are_those_of_jupyter_server(
    make_manager: MakesManagers, kernels: FakeKernels
) -> None:
    stock = StockSessionManager(kernel_manager=kernels, contents_manager=ContentsManager())
    ours = make_manager()
    for wanted in ({"type": "notebook"}, {"type": "file"}, {"type": "console", "name": "x"}):
        theirs = await stock.create_session(path="a", kernel_name=PYTHON, **wanted)  # type: ignore[arg-type]
        model = await create(ours, "a", **wanted)
        model["id"], model["kernel"]["id"] = theirs["id"], theirs["kernel"]["id"]
        assert model == theirs
    stock.close()
    stock.connection.close()


@pytest.mark.asyncio
async def test_a_session_may_take_a_kernel_that_runs(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    first = await create(manager)
    second = await create(manager, "b.ipynb", kernel_id=first["kernel"]["id"])
    assert second["kernel"] == first["kernel"]
    assert second["id"] != first["id"]
    assert kernels.started == ["kernel-0"]


@pytest.mark.asyncio
async def test_an_unknown_kernel_id_is_given_to_the_new_kernel(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    model = await create(manager, kernel_id="mine")
    assert model["kernel"]["id"] == "mine"
    assert kernels.started == ["mine"]


@pytest.mark.asyncio
async def test_a_kernel_is_told_its_sessions_name(
    manager: SessionManager, kernels: FakeKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    start = kernels.start_kernel

    async def start_kernel(**kwargs: Any) -> str:
        told.update(kwargs)
        return await start(**kwargs)

    monkeypatch.setattr(kernels, "start_kernel", start_kernel)
    await create(manager, "folder/a.ipynb")
    assert told["env"]["JPY_SESSION_NAME"] == "folder/a.ipynb"
    assert told["kernel_name"] == "python"


@pytest.mark.asyncio
async def test_create_itself_makes_a_new_session_each_time(manager: SessionManager) -> None:
    first, second = await create(manager), await create(manager)
    assert first["id"] != second["id"]
    assert await manager.list_sessions() == [first, second]


@pytest.mark.asyncio
async def test_a_kernel_that_does_not_start_leaves_nothing(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    kernels.failure = RuntimeError("no kernel today")
    with pytest.raises(RuntimeError, match="no kernel today"):
        await create(manager)
    assert await manager.list_sessions() == []
    assert len(manager._pending_sessions) == 0
    kernels.failure = None
    model = await create(manager)
    assert await stored(manager) == rows(model)


@pytest.mark.asyncio
async def test_a_session_that_cannot_be_stored_leaves_nothing(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    kept = await create(manager)
    async with refusing(manager):
        with error(503):
            await create(manager, "b.ipynb")
    assert kernels.ended == ["kernel-1"]
    assert "kernel-1" not in kernels
    assert await manager.list_sessions() == [kept]
    assert await stored(manager) == rows(kept)
    assert not await manager.session_exists(path="b.ipynb")
    assert len(manager._pending_sessions) == 0
    assert len(await manager.list_sessions()) == 1
    await create(manager, "b.ipynb")


@pytest.mark.asyncio
async def test_a_session_that_cannot_be_stored_leaves_a_kernel_that_ran_before(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    kept = await create(manager)
    async with refusing(manager):
        with error(503):
            await create(manager, "b.ipynb", kernel_id=kept["kernel"]["id"])
    assert kernels.ended == []
    assert await manager.list_sessions() == [kept]


@pytest.mark.asyncio
async def test_a_session_whose_caller_is_gone_is_made_all_the_same(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    kernels.gate.clear()
    caller = asyncio.ensure_future(create(manager))
    await kernels.asked.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    kernels.gate.set()
    assert await manager.session_exists(path="a.ipynb")
    [model] = await manager.list_sessions()
    assert await stored(manager) == rows(model)
    assert kernels.started == [model["kernel"]["id"]]


# -------------------------------------------------------------------------- session_exists


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"path": "a"}, True),
        ({"path": "b"}, False),
        ({"name": "n"}, True),
        ({"name": "m"}, False),
        ({"type": "console"}, True),
        ({"type": "file"}, False),
        ({"path": "a", "name": "n", "type": "console"}, True),
        ({"path": "a", "name": "n", "type": "file"}, False),
        ({"path": "a", "name": "m"}, False),
        ({"path": "a", "name": None, "type": None}, True),
        ({"path": ""}, False),
    ],
)
@pytest.mark.asyncio
async def test_a_session_is_looked_up_by_path_name_and_type(
    manager: SessionManager, wanted: dict[str, Any], found: bool
) -> None:
    await create(manager, "a", name=ModelName("n"), type="console")
    assert await manager.session_exists(**wanted) == found


@pytest.mark.asyncio
async def test_looking_for_nothing_is_a_mistake(manager: SessionManager) -> None:
    with pytest.raises(TypeError):
        await manager.session_exists()
    with pytest.raises(TypeError):
        await manager.session_exists(path=None, name=None)


@pytest.mark.asyncio
async def test_a_session_without_its_kernel_does_not_exist(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    await create(manager)
    kernels.die("kernel-0")
    assert not await manager.session_exists(path="a.ipynb")
    assert await stored(manager) == []


@pytest.mark.asyncio
async def test_a_session_in_the_making_is_waited_for(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    kernels.gate.clear()
    making = asyncio.ensure_future(create(manager))
    await kernels.asked.wait()
    asking = asyncio.ensure_future(manager.session_exists(path="a.ipynb"))
    assert not await manager.session_exists(path="b.ipynb"), "another one is not waited for"
    assert not asking.done()
    kernels.gate.set()
    assert await asking
    assert (await making)["path"] == "a.ipynb"


@pytest.mark.asyncio
async def test_a_session_whose_making_failed_does_not_exist(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    kernels.gate.clear()
    kernels.failure = RuntimeError("no kernel today")
    making = asyncio.ensure_future(create(manager))
    await kernels.asked.wait()
    asking = asyncio.ensure_future(manager.session_exists(path="a.ipynb"))
    kernels.gate.set()
    assert not await asking
    with pytest.raises(RuntimeError):
        await making


async def open_path(manager: SessionManager, path: str) -> dict[str, Any]:
    """Do as jupyter_server's handler of POST does."""
    if await manager.session_exists(path=path):
        return await manager.get_session(path=path)
    return await create(manager, path)


@pytest.mark.asyncio
async def test_of_many_requests_for_one_path_one_starts_a_kernel(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    models = await asyncio.gather(*(open_path(manager, "a.ipynb") for _ in range(50)))
    assert kernels.started == ["kernel-0"]
    assert models == [models[0]] * 50
    assert await stored(manager) == rows(models[0])


@pytest.mark.asyncio
async def test_of_many_requests_for_a_path_whose_kernel_is_gone_one_starts_a_kernel(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    await create(manager)
    kernels.die("kernel-0")
    models = await asyncio.gather(*(open_path(manager, "a.ipynb") for _ in range(50)))
    assert kernels.started == ["kernel-0", "kernel-1"]
    assert models == [models[0]] * 50
    assert await stored(manager) == rows(models[0])


# -------------------------------------------------------------------------- get and list


@pytest.mark.asyncio
async def test_a_session_is_found_by_any_column(manager: SessionManager) -> None:
    model = await create(manager, "a", name=ModelName("n"), type="console")
    other = await create(manager, "b", name=ModelName("m"), type="file")
    for column, value in {
        "session_id": model["id"],
        "path": "a",
        "name": "n",
        "type": "console",
        "kernel_id": model["kernel"]["id"],
    }.items():
        assert await manager.get_session(**{column: value}) == model
    assert await manager.get_session(path="b", type="file") == other
    with error(404):
        await manager.get_session(path="b", type="console")


@pytest.mark.asyncio
async def test_of_several_sessions_the_first_is_found(manager: SessionManager) -> None:
    first = await create(manager)
    await create(manager)
    assert await manager.get_session(path="a.ipynb") == first


@pytest.mark.parametrize("wanted", [{}, {"id": "x"}, {"path": "a.ipynb", "state": "live"}])
@pytest.mark.asyncio
async def test_only_columns_can_be_asked_for(
    manager: SessionManager, wanted: dict[str, Any]
) -> None:
    await create(manager)
    with pytest.raises(TypeError):
        await manager.get_session(**wanted)


@pytest.mark.asyncio
async def test_what_is_not_there_is_not_found(manager: SessionManager) -> None:
    with error(404) as caught:
        await manager.get_session(session_id="unknown", path="x")
    assert "session_id='unknown', path='x'" in str(caught.value)


@pytest.mark.asyncio
async def test_a_session_whose_kernel_is_gone_is_not_found_and_dropped(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    model = await create(manager)
    kernels.die("kernel-0")
    with error(404):
        await manager.get_session(session_id=model["id"])
    assert await stored(manager) == []


@pytest.mark.asyncio
async def test_sessions_are_listed_in_the_order_in_which_they_were_created(
    manager: SessionManager,
) -> None:
    models = [await create(manager, path) for path in "cab"]
    await manager.update_session(models[0]["id"], path="z")
    assert [m["id"] for m in await manager.list_sessions()] == [m["id"] for m in models]


@pytest.mark.asyncio
async def test_a_list_drops_sessions_whose_kernel_is_gone(
    manager: SessionManager, kernels: FakeKernels, caplog: pytest.LogCaptureFixture
) -> None:
    models = [await create(manager, path) for path in "abcd"]
    kernels.die(models[0]["kernel"]["id"])
    kernels.die(models[2]["kernel"]["id"])
    assert await manager.list_sessions() == [models[1], models[3]]
    assert await stored(manager) == rows(models[1], models[3])
    assert "2 sessions lost their kernel" in caplog.text


@pytest.mark.asyncio
async def test_reads_go_on_where_a_session_without_a_kernel_cannot_be_dropped(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    gone, kept = await create(manager, "gone"), await create(manager, "kept")
    kernels.die(gone["kernel"]["id"])
    async with refusing(manager, "DELETE"):
        assert await manager.list_sessions() == [kept]
        assert await manager.session_exists(path="kept")
        assert not await manager.session_exists(path="gone")
        with error(404):
            await manager.get_session(session_id=gone["id"])


# -------------------------------------------------------------------------- update


@pytest.mark.asyncio
async def test_columns_of_a_session_are_changed(manager: SessionManager) -> None:
    model = await create(manager)
    await manager.update_session(model["id"], path="b.txt", name="b", type="file")
    changed = await manager.get_session(session_id=model["id"])
    model.pop("notebook")
    assert changed == {**model, "path": "b.txt", "name": "b", "type": "file"}
    assert await stored(manager) == rows(changed)
    assert not await manager.session_exists(path="a.ipynb")
    assert await manager.session_exists(path="b.txt")


@pytest.mark.asyncio
async def test_a_session_moves_to_another_kernel(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    first, second = await create(manager), await create(manager, "b.ipynb")
    await manager.update_session(first["id"], kernel_id=second["kernel"]["id"])
    moved = await manager.get_session(session_id=first["id"])
    assert moved["kernel"] == second["kernel"]
    assert await stored(manager) == rows(moved, second)
    assert kernels.ended == [], "that is for the caller to do"


@pytest.mark.asyncio
async def test_a_live_session_may_take_the_path_of_another(manager: SessionManager) -> None:
    first, second = await create(manager, "a"), await create(manager, "b")
    await manager.update_session(first["id"], path="b")
    assert [m["id"] for m in await manager.list_sessions()] == [first["id"], second["id"]]


@pytest.mark.asyncio
async def test_a_kernel_is_told_its_sessions_new_name(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    model = await create(manager)
    await manager.update_session(model["id"], path="folder/b.ipynb")
    assert kernels._kernels["kernel-0"].env["JPY_SESSION_NAME"] == "folder/b.ipynb"


@pytest.mark.asyncio
async def test_no_changes_change_nothing(manager: SessionManager, kernels: FakeKernels) -> None:
    model = await create(manager)
    async with refusing(manager, "UPDATE"):
        await manager.update_session(model["id"])
    assert await manager.list_sessions() == [model]
    assert kernels._kernels["kernel-0"].env == {}


@pytest.mark.asyncio
async def test_an_unknown_column_changes_nothing(manager: SessionManager) -> None:
    model = await create(manager)
    with pytest.raises(TypeError):
        await manager.update_session(model["id"], path="b", state="live")
    assert await manager.list_sessions() == [model]


@pytest.mark.asyncio
async def test_an_unknown_session_cannot_be_changed(manager: SessionManager) -> None:
    with error(404):
        await manager.update_session("unknown", path="b")


@pytest.mark.asyncio
async def test_a_change_that_cannot_be_stored_changes_nothing(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    model = await create(manager)
    async with refusing(manager, "UPDATE"):
        with error(503):
            await manager.update_session(model["id"], path="b")
    assert await manager.list_sessions() == [model]
    assert await stored(manager) == rows(model)
    assert kernels._kernels["kernel-0"].env == {}


# -------------------------------------------------------------------------- delete


@pytest.mark.asyncio
async def test_a_deleted_session_ends_with_its_kernel(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    model, kept = await create(manager), await create(manager, "b.ipynb")
    await manager.delete_session(model["id"])
    assert kernels.ended == [model["kernel"]["id"]]
    assert await manager.list_sessions() == [kept]
    assert await stored(manager) == rows(kept)
    with error(404):
        await manager.delete_session(model["id"])


@pytest.mark.asyncio
async def test_an_unknown_session_cannot_be_deleted(manager: SessionManager) -> None:
    with error(404):
        await manager.delete_session(session_id="unknown")
    with pytest.raises(TypeError):
        await manager.delete_session(id="unknown")  # type: ignore[call-arg]
    assert len(manager._pending_sessions) == 0


@pytest.mark.asyncio
async def test_a_session_is_restored_where_its_kernel_is_not_ended(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    model = await create(manager)
    kernels.failure = RuntimeError("it will not end")
    with pytest.raises(RuntimeError, match="it will not end"):
        await manager.delete_session(model["id"])
    assert await manager.list_sessions() == [model]
    assert await stored(manager) == rows(model)
    kernels.failure = None
    await manager.delete_session(model["id"])
    assert await manager.list_sessions() == []


@pytest.mark.asyncio
async def test_a_deletion_that_cannot_be_stored_ends_no_kernel(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    model = await create(manager)
    async with refusing(manager, "DELETE"):
        with error(503):
            await manager.delete_session(model["id"])
    assert kernels.ended == []
    assert await manager.list_sessions() == [model]


@pytest.mark.asyncio
async def test_a_deletion_whose_caller_is_gone_is_finished(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    model = await create(manager)
    kernels.asked.clear()
    kernels.gate.clear()
    caller = asyncio.ensure_future(manager.delete_session(model["id"]))
    await kernels.asked.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    kernels.gate.set()
    await kernels.one_ended.wait()
    assert await manager.list_sessions() == []
    assert await stored(manager) == []


@pytest.mark.asyncio
async def test_what_is_under_way_is_shown_as_pending(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    kernels.gate.clear()
    making = [asyncio.ensure_future(create(manager)) for _ in range(2)]
    await kernels.asked.wait()
    assert len(manager._pending_sessions) == 2
    kernels.gate.set()
    models = await asyncio.gather(*making)
    assert len(manager._pending_sessions) == 0

    kernels.asked.clear()
    kernels.gate.clear()
    deleting = asyncio.ensure_future(manager.delete_session(models[0]["id"]))
    await kernels.asked.wait()
    assert len(manager._pending_sessions) == 1
    assert models[0]["id"] in manager._pending_sessions
    kernels.gate.set()
    await deleting
    assert len(manager._pending_sessions) == 0


@pytest.mark.asyncio
async def test_sessions_made_at_once_for_one_kernel_leave_nothing_pending(
    manager: SessionManager,
) -> None:
    first = await create(manager)
    kernel_id = first["kernel"]["id"]
    await asyncio.gather(*(create(manager, path, kernel_id=kernel_id) for path in "xyz"))
    assert len(manager._pending_sessions) == 0
    assert [m["path"] for m in await manager.list_sessions()] == ["a.ipynb", "x", "y", "z"]


# -------------------------------------------------------------------------- rows and the database


@pytest.mark.asyncio
async def test_the_connection_is_the_databases_own(manager: SessionManager) -> None:
    model = await create(manager, name=ModelName("n"))
    connection = await manager.connection
    assert connection is await manager.connection
    [row] = await connection.execute_fetchall("SELECT * FROM session")
    assert row.keys() == COLUMNS
    assert tuple(row) == (model["id"], "a.ipynb", "n", "notebook", "kernel-0")


@pytest.mark.asyncio
async def test_a_cursor_is_new_each_time(manager: SessionManager) -> None:
    model = await create(manager)
    first, second = await manager.cursor, await manager.cursor
    assert first is not second
    await first.execute("SELECT * FROM session WHERE session_id=?", (model["id"],))
    row = await first.fetchone()
    assert row is not None
    assert dict(row) == dict(
        zip(COLUMNS, (model["id"], "a.ipynb", None, "notebook", "kernel-0"), strict=True)
    )


@pytest.mark.asyncio
async def test_the_database_has_its_table_before_there_is_a_session(
    manager: SessionManager,
) -> None:
    assert await stored(manager) == []


@pytest.mark.asyncio
async def test_a_row_is_made_a_model(manager: SessionManager) -> None:
    model = await create(manager)
    cursor = await manager.cursor
    await cursor.execute("SELECT * FROM session")
    row = await cursor.fetchone()
    assert row is not None
    assert await manager.row_to_model(row) == model
    assert await manager.row_to_model(dict(row)) == model


@pytest.mark.asyncio
async def test_a_row_whose_kernel_is_gone_is_an_error_unless_that_is_tolerated(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    model = await create(manager)
    row = dict(zip(COLUMNS, (model["id"], "a", None, "notebook", "kernel-0"), strict=True))
    kernels.die("kernel-0")
    assert await manager.row_to_model(row, tolerate_culled=True) is None
    with pytest.raises(KeyError, match="kernel-0"):
        await manager.row_to_model(row)


@pytest.mark.asyncio
async def test_rows_are_made_models_by_a_connection_too(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    """``row_factory`` is what a synchronous reader of the table sets on its connection."""
    model = await create(manager)
    values = (model["id"], "a.ipynb", None, "notebook", "kernel-0")
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE session (session_id, path, name, type, kernel_id)")
        connection.execute("INSERT INTO session VALUES (?,?,?,?,?)", values)
        connection.row_factory = manager.row_factory
        assert connection.execute("SELECT * FROM session").fetchall() == [model]
        kernels.die("kernel-0")
        with error(404):
            connection.execute("SELECT * FROM session").fetchall()


@pytest.mark.asyncio
async def test_sessions_are_kept_in_a_file(make_manager: MakesManagers, file: Path) -> None:
    first = make_manager(database_filepath=str(file))
    models = [await create(first, path) for path in "cab"]
    first.close()
    second = make_manager(database_filepath=str(file))
    assert await second.list_sessions() == models
    assert await second.get_session(session_id=models[1]["id"]) == models[1]


@pytest.mark.asyncio
async def test_a_file_can_be_used_again_at_once_without_close(
    kernels: FakeKernels, file: Path
) -> None:
    """As jupyter_server's own tests do."""
    models: list[dict[str, Any]] = []
    for _ in range(3):
        manager = SessionManager(
            kernel_manager=kernels,
            contents_manager=ContentsManager(),
            database_filepath=str(file),
        )
        assert await manager.list_sessions() == models
        models.append(await create(manager))
        del manager


@pytest.mark.asyncio
async def test_a_manager_that_is_dropped_leaves_no_thread(kernels: FakeKernels, file: Path) -> None:
    before = set(threading.enumerate())
    manager = SessionManager(
        kernel_manager=kernels, contents_manager=ContentsManager(), database_filepath=str(file)
    )
    await create(manager)
    workers = [t for t in set(threading.enumerate()) - before if not t.name.startswith("asyncio_")]
    assert len(workers) == 1
    del manager
    gc.collect()
    workers[0].join(10)
    assert not workers[0].is_alive()


@pytest.mark.parametrize("end", ["", "manager.close()"], ids=["never closed", "closed"])
def test_an_interpreter_ends_quietly_with_its_manager(file: Path, end: str) -> None:
    script = f"""
        import asyncio, sys
        from jupyter_server.services.contents.manager import ContentsManager
        from jupyter_server.services.kernels.kernelmanager import MappingKernelManager
        from jupyter_sessions_ext import SessionManager

        manager = SessionManager(
            kernel_manager=MappingKernelManager(),
            contents_manager=ContentsManager(),
            database_filepath=sys.argv[1],
        )

        async def use():
            await manager.connection

        asyncio.run(use())
        {end}
        """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), file],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.asyncio
async def test_a_closed_manager_answers_from_memory_and_changes_nothing(
    manager: SessionManager,
) -> None:
    model = await create(manager)
    manager.close()
    manager.close()
    assert await manager.list_sessions() == [model]
    with error(503):
        await manager.update_session(model["id"], path="b")


def test_a_manager_that_was_never_used_closes(make_manager: MakesManagers, file: Path) -> None:
    manager = make_manager(database_filepath=str(file))
    manager.close()
    manager.close()
    assert not file.exists()


def test_a_database_is_in_memory_unless_it_is_configured(make_manager: MakesManagers) -> None:
    assert make_manager().database_filepath == ":memory:"


@pytest.mark.asyncio
async def test_an_empty_file_is_a_database(make_manager: MakesManagers, file: Path) -> None:
    touch(file)
    manager = make_manager(database_filepath=str(file))
    model = await create(manager)
    assert await stored(manager) == rows(model)


def touch(file: Path) -> None:
    file.touch()


def test_a_folder_is_no_database(make_manager: MakesManagers, tmp_path: Path) -> None:
    with pytest.raises(TraitError, match="directory"):
        make_manager(database_filepath=str(tmp_path))


def test_another_file_is_no_database(make_manager: MakesManagers, file: Path) -> None:
    file.write_text("dear diary")
    with pytest.raises(TraitError, match="not an SQLite"):
        make_manager(database_filepath=str(file))
    assert file.read_text() == "dear diary"


@pytest.mark.asyncio
async def test_a_database_that_cannot_be_opened_is_a_503_until_it_can(
    make_manager: MakesManagers, tmp_path: Path, kernels: FakeKernels
) -> None:
    folder = tmp_path / "not-there-yet"
    manager = make_manager(database_filepath=str(folder / "sessions.db"))
    for _ in range(2):
        with error(503):
            await manager.list_sessions()
    with error(503):
        await create(manager)
    assert kernels.started == []
    os.mkdir(folder)
    model = await create(manager)
    assert await manager.list_sessions() == [model]


@pytest.mark.asyncio
async def test_a_database_of_a_newer_version_is_a_503(
    make_manager: MakesManagers, file: Path
) -> None:
    manager = make_manager(database_filepath=str(file))
    await create(manager)
    manager.close()
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT INTO schema_version VALUES (?, '', '')", (LATEST + 1,))
    newer = make_manager(database_filepath=str(file))
    with error(503) as caught:
        await newer.list_sessions()
    assert "upgrade jupyter_sessions_ext" in str(caught.value)


@pytest.mark.asyncio
async def test_whoever_comes_first_together_reads_the_file_once(
    make_manager: MakesManagers, file: Path
) -> None:
    first = make_manager(database_filepath=str(file))
    model = await create(first)
    first.close()
    second = make_manager(database_filepath=str(file))
    lists = await asyncio.gather(*(second.list_sessions() for _ in range(10)))
    assert lists == [[model]] * 10


# -------------------------------------------------------------------------- gateways


class RemoteKernels(FakeKernels):
    """A kernel manager that asks another host, as a gateway's does."""

    def __init__(self) -> None:
        super().__init__()
        self.asking = 0
        self.expected = 1
        self.one_asked = asyncio.Event()
        self.all_asked = asyncio.Event()

    async def answer(self) -> None:
        """Answer once as many questions as are expected are asked at the same time."""
        self.asking += 1
        self.one_asked.set()
        if self.asking >= self.expected:
            self.all_asked.set()
        await self.all_asked.wait()

    async def kernel_model(self, kernel_id: str) -> Any:
        await self.answer()
        return super().kernel_model(kernel_id)


class RemoteSessionManager(SessionManager):
    """As a gateway's session manager: whether a kernel is gone is asked of another host."""

    async def kernel_culled(self, kernel_id: str) -> bool:
        await self.kernel_manager.answer()
        return kernel_id not in self.kernel_manager


@pytest.fixture
def remote_kernels() -> RemoteKernels:
    return RemoteKernels()


@pytest.fixture
def remote(remote_kernels: RemoteKernels) -> Iterator[SessionManager]:
    make = MakesManagers(remote_kernels)
    yield make(RemoteSessionManager)
    make.made[0].close()


@pytest.mark.asyncio
async def test_a_gateways_answers_are_waited_for(
    remote: SessionManager, remote_kernels: RemoteKernels
) -> None:
    model = await create(remote)
    assert model["kernel"]["name"] == "python"
    assert await remote.session_exists(path="a.ipynb")
    assert await remote.list_sessions() == [model]
    await remote.update_session(model["id"], path="b.ipynb")
    await remote.delete_session(model["id"])
    assert remote_kernels.ended == ["kernel-0"]
    assert await remote.list_sessions() == []


@pytest.mark.asyncio
async def test_a_list_asks_a_gateway_for_all_kernels_together(
    remote: SessionManager, remote_kernels: RemoteKernels
) -> None:
    models = [await create(remote, path) for path in "abc"]
    remote_kernels.asking, remote_kernels.expected = 0, 3
    remote_kernels.all_asked.clear()
    assert await asyncio.wait_for(remote.list_sessions(), 10) == models


@pytest.mark.asyncio
async def test_a_list_drops_what_a_gateway_has_lost(
    remote: SessionManager, remote_kernels: RemoteKernels
) -> None:
    models = [await create(remote, path) for path in "abc"]
    remote_kernels.die("kernel-1")
    assert await remote.list_sessions() == [models[0], models[2]]
    assert await stored(remote) == rows(models[0], models[2])


@pytest.mark.asyncio
async def test_a_session_made_while_a_gateway_is_asked_about_an_older_one_is_seen(
    remote: SessionManager, remote_kernels: RemoteKernels
) -> None:
    """Whoever asks before creating makes no second one, however long the answer takes."""
    await create(remote)
    remote_kernels.die("kernel-0")
    remote_kernels.expected = 1 << 30
    remote_kernels.one_asked.clear()
    remote_kernels.all_asked.clear()
    asking = asyncio.ensure_future(remote.session_exists(path="a.ipynb"))
    await remote_kernels.one_asked.wait()
    answered = remote_kernels.all_asked
    remote_kernels.all_asked = asyncio.Event()
    remote_kernels.all_asked.set()
    await create(remote)
    answered.set()
    assert await asking


# -------------------------------------------------------------------------- in a workspace


class Server(Configurable):
    """What a session manager reads of its server."""

    root_dir = Unicode("")


@pytest.fixture
def workspace() -> Workspace:
    return Workspace(logging.getLogger("test"))


@pytest.fixture
def lasting(make_manager: MakesManagers, workspace: Workspace) -> SessionManager:
    """Return a manager as the extension composes it, on a workspace in memory."""
    cls = type("LastingSessionManager", (SessionManager,), {"workspace": workspace})
    return make_manager(cls, parent=Server())


@pytest.mark.asyncio
async def test_a_session_whose_kernel_is_gone_is_kept_and_not_shown(
    lasting: SessionManager, kernels: FakeKernels
) -> None:
    model = await create(lasting)
    kernels.die("kernel-0")
    assert await lasting.list_sessions() == []
    assert not await lasting.session_exists(path="a.ipynb")
    with error(404):
        await lasting.get_session(session_id=model["id"])
    assert await stored(lasting) == rows(model)


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.asyncio
async def test_a_session_comes_back_under_its_id_with_a_kernel_like_its_last(
    lasting: SessionManager, workspace: Workspace, kernels: FakeKernels, noted: bool
) -> None:
    old = await create(lasting, kernel_name=KernelName("julia"))
    kernels.die("kernel-0")
    if noted:
        workspace.kernel_gone("kernel-0", "culled")
        await workspace.settled()
        assert workspace.registry.sessions[old["id"]].state is SessionState.DORMANT
    new = await create(lasting, kernel_name=None)
    assert new["id"] == old["id"]
    assert (new["kernel"]["id"], new["kernel"]["name"]) == ("kernel-1", "julia")
    assert await lasting.list_sessions() == [new]
    session = workspace.registry.sessions[new["id"]]
    assert (session.state, session.reason) == (SessionState.LIVE, "")
    history = [event.action for event in await workspace.store.events(new["id"])]
    assert history == ["created", *(["dormant"] if noted else []), "revived"]


@pytest.mark.asyncio
async def test_of_two_that_open_a_dormant_path_at_once_one_has_the_old_id(
    lasting: SessionManager, kernels: FakeKernels
) -> None:
    old = await create(lasting)
    kernels.die("kernel-0")
    models = await asyncio.gather(create(lasting), create(lasting))
    assert [model["id"] == old["id"] for model in models] == [True, False]


@pytest.mark.asyncio
async def test_a_session_that_moves_onto_a_dormant_path_absorbs_it_and_its_history(
    lasting: SessionManager, workspace: Workspace, kernels: FakeKernels
) -> None:
    dormant = await create(lasting, "a.ipynb")
    kernels.die("kernel-0")
    workspace.kernel_gone("kernel-0", "died")
    await workspace.settled()
    model = await create(lasting, "temporary")
    await lasting.update_session(model["id"], path="a.ipynb")
    assert list(workspace.registry.sessions) == [model["id"]]
    assert await stored(lasting) == [(model["id"], "a.ipynb", "kernel-1")]
    history = [event.action for event in await workspace.store.events(model["id"])]
    assert history == ["created", "dormant", "created", "renamed"]
    assert await workspace.store.events(dormant["id"]) == []


@pytest.mark.asyncio
async def test_the_kernel_that_a_session_leaves_is_replaced_unless_another_has_it(
    lasting: SessionManager, workspace: Workspace
) -> None:
    first = await create(lasting, "a")
    await create(lasting, "b", kernel_id="kernel-0")
    other = await create(lasting, "c")
    for kernel_id in ("kernel-0", "kernel-1"):
        record = new_kernel(kernel_id, "python", "")
        await workspace.running(replace(record, phase=KernelPhase.RUNNING))

    def phases() -> list[KernelPhase]:
        return [kernel.phase for kernel in workspace.registry.kernels.values()]

    await lasting.update_session(first["id"], kernel_id="kernel-1")
    assert phases() == [KernelPhase.RUNNING, KernelPhase.RUNNING]
    await lasting.update_session(first["id"], kernel_id="kernel-0")
    await lasting.update_session(other["id"], kernel_id="kernel-0")
    assert phases() == [KernelPhase.RUNNING, KernelPhase.REPLACED]
    await lasting.update_session(other["id"], kernel_id="kernel-1")
    assert phases() == [KernelPhase.RUNNING, KernelPhase.RUNNING]


@pytest.mark.asyncio
async def test_a_kernel_that_was_not_ended_with_its_session_is_not_a_remnant(
    lasting: SessionManager, workspace: Workspace, kernels: FakeKernels
) -> None:
    """The session is restored: the next server must not end its kernel as one to be stopped."""
    model = await create(lasting)
    record = replace(new_kernel("kernel-0", "python", ""), phase=KernelPhase.RUNNING)
    await workspace.running(record)
    kernels.failure = RuntimeError("it will not end")
    with pytest.raises(RuntimeError):
        await lasting.delete_session(model["id"])
    assert workspace.registry.kernels == {"kernel-0": record}
    assert isinstance(workspace.registry.sessions[model["id"]], SessionRecord)


@pytest.mark.asyncio
async def test_a_deleted_session_does_not_turn_dormant_when_its_kernel_ends(
    lasting: SessionManager, workspace: Workspace, kernels: FakeKernels
) -> None:
    model = await create(lasting)
    kernels.asked.clear()
    kernels.gate.clear()
    deleting = asyncio.ensure_future(lasting.delete_session(model["id"]))
    await kernels.asked.wait()
    workspace.kernel_gone("kernel-0", "shut down")
    kernels.gate.set()
    await deleting
    await workspace.settled()
    assert workspace.registry.sessions == {}
    assert [e.action for e in await workspace.store.events(model["id"])] == ["created", "deleted"]
