"""The session manager finds and lists the sessions whose kernels run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from jupyter_server.services.sessions.sessionmanager import ModelName
from session_managers import FakeKernels, create, error, refusing, rows, stored

from jupyter_sessions_ext.sessions.manager import SessionManager

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
