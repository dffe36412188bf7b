"""The session manager changes and deletes sessions: durably, or not at all."""

from __future__ import annotations

import asyncio

import pytest
from session_managers import FakeKernels, create, error, refused, refusing, rows, stored

from jupyter_sessions_ext.sessions.manager import SessionManager

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
    async with refused(manager, "UPDATE"):
        await manager.update_session(model["id"], path="b")
    assert await manager.list_sessions() == [model]
    assert await stored(manager) == rows(model)
    assert kernels._kernels["kernel-0"].env == {}


@pytest.mark.asyncio
async def test_a_kernel_that_was_started_for_a_session_deleted_meanwhile_ends(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    model = await create(manager)
    kernels.gate.clear()
    kernels.asked.clear()
    change = asyncio.ensure_future(manager.change_session(model["id"], {}, "python"))
    await kernels.asked.wait()
    kernels.asked.clear()
    delete = asyncio.ensure_future(manager.end_session(model["id"]))
    await kernels.asked.wait()
    kernels.gate.set()
    await delete
    with error(404):
        await change
    assert kernels.started == ["kernel-0", "kernel-1"]
    assert list(kernels.list_kernel_ids()) == []


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
    async with refused(manager, "DELETE"):
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


@pytest.mark.asyncio
async def test_a_document_that_is_deleted_right_after_it_was_renamed_takes_its_session_along(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    await create(manager)
    await asyncio.gather(
        manager.document_renamed("a.ipynb", "b.ipynb"), manager.document_deleted("b.ipynb")
    )
    assert await manager.list_sessions() == []
    assert kernels.ended == ["kernel-0"]
