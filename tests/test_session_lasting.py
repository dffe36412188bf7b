"""The session manager as the extension composes it: sessions outlast their kernels."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest
from jupyter_server.services.sessions.sessionmanager import KernelName
from session_managers import (
    FakeKernels,
    MakesManagers,
    Server,
    compose,
    create,
    error,
    rows,
    stored,
)

from jupyter_sessions_ext.models import EventFilter, KernelPhase, SessionRecord, SessionState
from jupyter_sessions_ext.sessions.manager import SessionManager
from jupyter_sessions_ext.workspace import Workspace, new_kernel


@pytest.fixture
def workspace() -> Workspace:
    return Workspace(logging.getLogger("test"))


@pytest.fixture
def lasting(make_manager: MakesManagers, workspace: Workspace) -> SessionManager:
    """Return a manager as the extension composes it, on a workspace in memory."""
    return compose(make_manager, workspace)


async def actions(workspace: Workspace, session_id: str) -> list[str]:
    events = await workspace.store.events(EventFilter(session_id=session_id))
    return [event.action.value for event in events]


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
    history = await actions(workspace, new["id"])
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
    history = await actions(workspace, model["id"])
    assert history == ["created", "dormant", "created", "renamed", "absorbed"]
    assert await actions(workspace, dormant["id"]) == []


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
    assert await actions(workspace, model["id"]) == ["created", "deleted"]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.asyncio
async def test_a_session_is_deleted_once_also_where_a_subclass_fails_to(
    make_manager: MakesManagers, workspace: Workspace, kernels: FakeKernels, before: bool
) -> None:
    class Fails(SessionManager):
        async def delete_session(self, session_id: str) -> None:
            if not before:
                await super().delete_session(session_id)
            raise KeyError(session_id)

    manager = make_manager(type("Own", (Fails,), {"workspace": workspace}), parent=Server())
    model = await create(manager)
    await manager.end_session(model["id"])
    assert workspace.registry.sessions == {}
    assert await actions(workspace, model["id"]) == ["created", "deleted"]
    with error(404):
        await manager.end_session(model["id"])
