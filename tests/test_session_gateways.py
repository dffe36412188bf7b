"""The session manager over kernels on another host, which are asked about."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from session_managers import FakeKernels, MakesManagers, create, rows, stored

from jupyter_sessions_ext.sessions.manager import SessionManager


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
