"""The session manager's database, its rows and its end, for those who use them directly."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sqlite3
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from interpreters import run_python
from jupyter_server.services.contents.manager import ContentsManager
from jupyter_server.services.sessions.sessionmanager import ModelName
from session_managers import FakeKernels, MakesManagers, create, error, rows, stored
from traitlets import TraitError

from jupyter_sessions_ext.sessions.manager import SessionManager
from jupyter_sessions_ext.storage.migrations import LATEST

COLUMNS = ["session_id", "path", "name", "type", "kernel_id"]


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
    ended = run_python("-c", textwrap.dedent(script), file)
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
