"""The session manager creates sessions as jupyter_server's does, and leaves no half of one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from jupyter_server.services.contents.manager import ContentsManager
from jupyter_server.services.sessions.sessionmanager import ModelName
from jupyter_server.services.sessions.sessionmanager import SessionManager as StockSessionManager
from session_managers import (
    PYTHON,
    FakeKernels,
    MakesManagers,
    create,
    refused,
    rows,
    stored,
)

from jupyter_sessions_ext.sessions.manager import SessionManager


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
    async with refused(manager):
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
    async with refused(manager):
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
