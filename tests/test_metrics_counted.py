"""What is counted, and of which workspace: the metrics of this process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.multikernelmanager import DuplicateKernelError
from jupyter_server.serverapp import ServerApp
from scrapes import Scrape, counting, here
from session_managers import FakeKernels, MakesManagers, compose, create, error, refusing
from tornado import web
from workspaces import KERNEL, LOG, OTHER, SESSION, Opens, add

from jupyter_sessions_ext import metrics
from jupyter_sessions_ext.administration.actions import Actions
from jupyter_sessions_ext.administration.schemas import SessionChange
from jupyter_sessions_ext.administration.transfer import Importer
from jupyter_sessions_ext.errors import (
    AdoptionError,
    KernelGoneError,
    KernelStartError,
    StoreUnavailableError,
    ValueRefusedError,
)
from jupyter_sessions_ext.host import identify
from jupyter_sessions_ext.kernels.manager import KernelIdTakenError
from jupyter_sessions_ext.kernels.recovery import recover
from jupyter_sessions_ext.models import Change, KernelPhase, KernelRecord, SessionState
from jupyter_sessions_ext.sessions.manager import SessionManager
from jupyter_sessions_ext.wire import InvalidBodyError
from jupyter_sessions_ext.workspace import Workspace

# -------------------------------------------------------------------------- operations


def caused_by(cause: Exception) -> Exception:
    error = KernelStartError("k", str(cause))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("raised", "result"),
    [
        (None, "ok"),
        (web.HTTPError(400), "refused"),
        (web.HTTPError(404), "refused"),
        (KernelIdTakenError("k", "is taken"), "refused"),
        (NoSuchKernel("k"), "refused"),
        (DuplicateKernelError(), "refused"),
        (ValueRefusedError(), "refused"),
        (caused_by(NoSuchKernel("k")), "refused"),
        (web.HTTPError(503), "unavailable"),
        (StoreUnavailableError("file", "full"), "unavailable"),
        (web.HTTPError(500), "failed"),
        (web.HTTPError(501), "failed"),
        (caused_by(RuntimeError()), "failed"),
        (KernelStartError("k", "dead"), "failed"),
        (KeyError("k"), "failed"),
        (asyncio.CancelledError(), "failed"),
    ],
    ids=repr,
)
def test_an_operation_is_counted_by_what_it_raises(
    raised: BaseException | None, result: str
) -> None:
    with counting("operations_total") as grown:
        expected = pytest.raises(type(raised)) if raised else contextlib.nullcontext()
        with expected, metrics.operation("restart"):
            if raised:
                raise raised
    assert grown == {("restart", result): 1}


@pytest.mark.asyncio
async def test_an_operation_within_another_is_a_part_of_it() -> None:
    go_on = asyncio.Event()

    async def later() -> None:
        await go_on.wait()
        with metrics.operation("delete"):
            pass

    with counting("operations_total") as grown:
        with metrics.operation("import"):
            with contextlib.suppress(KeyError), metrics.operation("create"):
                raise KeyError
            task = asyncio.create_task(later())
        go_on.set()
        await task
    assert grown == {("import", "ok"): 1, ("delete", "ok"): 1}, "but not one that it has outlived"


@pytest.mark.asyncio
async def test_a_session_whose_caller_goes_away_counts_as_it_ends(
    manager: SessionManager, kernels: FakeKernels
) -> None:
    with counting("operations_total") as grown:
        kernels.gate.clear()
        creating = asyncio.ensure_future(create(manager))
        await kernels.asked.wait()
        creating.cancel()
        kernels.gate.set()
        assert await manager.session_exists(path="a.ipynb")
    assert grown == {("create", "ok"): 1}


@pytest.mark.asyncio
async def test_a_change_of_the_kernel_is_one_change(manager: SessionManager) -> None:
    session = await create(manager)
    with counting("operations_total") as grown:
        await manager.change_session(session["id"], {"path": "b.ipynb"}, "python")
    assert grown == {("change", "ok"): 1}


@pytest.mark.asyncio
async def test_what_is_done_to_a_dormant_session_counts_once(
    make_manager: MakesManagers, kernels: FakeKernels
) -> None:
    workspace = Workspace(LOG)
    manager = compose(make_manager, workspace)
    session = await create(manager)
    kernels.die("kernel-0")
    workspace.kernel_gone("kernel-0", "died")
    await workspace.settled()
    with counting("operations_total") as grown:
        await manager.change_dormant(session["id"], {"path": "b.ipynb"})
        await manager.revive_session(session["id"])
    assert grown == {("change", "ok"): 1, ("revive", "ok"): 1}
    with counting("operations_total") as grown, error(404):
        await manager.revive_session("none")
    assert grown == {("revive", "refused"): 1}


@pytest.mark.asyncio
async def test_each_of_the_sessions_that_are_forgotten_at_once_counts(
    manager: SessionManager,
) -> None:
    ids = [(await create(manager, f"{n}.ipynb"))["id"] for n in range(3)]
    with counting("operations_total") as grown:
        await manager.forget_sessions(ids)
    assert grown == {("forget", "ok"): 3}


@pytest.mark.asyncio
async def test_what_cannot_be_stored_is_unavailable(manager: SessionManager) -> None:
    session = await create(manager)
    with counting("operations_total") as grown, counting("store_commit_failures_total") as failed:
        async with refusing(manager, "DELETE"):
            with error(503):
                await manager.delete_session(session["id"])
    assert grown == {("delete", "unavailable"): 1}
    assert failed == {(): 1}


@pytest.mark.asyncio
async def test_what_administrators_do_is_counted_under_its_own_name(
    make_manager: MakesManagers, kernels: FakeKernels
) -> None:
    workspace = Workspace(LOG)
    manager = compose(make_manager, workspace)
    actions = Actions(workspace, manager)
    ids = [(await create(manager, f"{n}.ipynb"))["id"] for n in range(6)]
    for kernel_id in ("kernel-4", "kernel-5"):
        kernels.die(kernel_id)
        workspace.kernel_gone(kernel_id, "died")
    await workspace.settled()
    with counting("operations_total") as grown:
        for action in ("interrupt", "restart", "forget"):
            with contextlib.suppress(web.HTTPError, AttributeError):  # there is no process
                await actions.do(action, ids[0])
        await actions.change(ids[1], SessionChange(path="b.ipynb"), None)
        with error(412):
            await actions.change(ids[1], SessionChange(path="c.ipynb"), ["stale"])
        await actions.do("delete", ids[1])
        await actions.do_all("forget", [*ids[2:4], "none"])
        await actions.do_all("delete", ids[4:])
        await actions.attach("kernel-0", path="c.ipynb", type="notebook", name=None)
        with pytest.raises(InvalidBodyError):
            await Importer(workspace).take(b"no such document")
    assert grown == {
        ("interrupt", "failed"): 1,
        ("restart", "failed"): 1,
        ("forget", "ok"): 3,
        ("forget", "refused"): 1,
        ("change", "ok"): 1,
        ("change", "refused"): 1,
        ("delete", "ok"): 3,
        ("attach", "ok"): 1,
        ("import", "refused"): 1,
    }


# -------------------------------------------------------------------------- recovery


@pytest.fixture
def run_kernel() -> Iterator[Callable[[str], KernelRecord]]:
    """Run processes in kernels' stead; return their records."""
    with contextlib.ExitStack() as stack:

        def run(kernel_id: str) -> KernelRecord:
            process = subprocess.Popen(
                [sys.executable, "-c", "import sys; sys.stdin.read()"],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return replace(
                KERNEL,
                kernel_id=kernel_id,
                phase=KernelPhase.RUNNING,
                process=identify(process.pid),
            )

        yield run


def test_a_recovery_counts_what_it_does_with_each_kernel(
    open_workspace: Opens, run_kernel: Callable[[str], KernelRecord]
) -> None:
    opened = open_workspace()
    metrics.follow(opened.reading)
    mine = replace(SESSION, kernel_id="mine")
    coming = replace(SESSION, session_id="coming", kernel_id="coming")
    kernels = (
        run_kernel("mine"),
        replace(run_kernel("coming"), intent=coming),
        replace(run_kernel("stopping"), phase=KernelPhase.STOPPING),
        run_kernel("odd"),
        run_kernel("dying"),
        replace(KERNEL, kernel_id="dead"),
        replace(KERNEL, kernel_id="elsewhere", machine="elsewhere"),
    )
    opened.commit_now(Change(sessions=(mine, replace(OTHER, kernel_id="dead")), kernels=kernels))

    def adopt(kernel: KernelRecord) -> None:
        if kernel.kernel_id == "odd":
            raise AdoptionError("odd", "injected")
        if kernel.kernel_id == "dying":
            raise KernelGoneError("dying", "injected")

    with (
        counting("recovery_kernels_total") as of_kernels,
        counting("recovery_sessions_total") as of_sessions,
    ):
        recover(opened, adopt)
    assert of_kernels == {
        ("adopted",): 2,
        ("ended",): 1,
        ("failed",): 1,
        ("gone",): 2,
        ("left",): 1,
    }
    assert of_sessions == {("recovered",): 1, ("dormant",): 1}
    assert here()("adopted_kernels") == 2


@pytest.mark.asyncio
async def test_a_new_kernel_under_an_adopted_ones_id_is_not_adopted(
    open_workspace: Opens, run_kernel: Callable[[str], KernelRecord]
) -> None:
    opened = open_workspace()
    metrics.follow(opened.reading)
    kernel = run_kernel("k")
    opened.commit_now(Change(kernels=(kernel,)))
    recover(opened, lambda _: None)
    assert here()("adopted_kernels") == 1
    await opened.transact(lambda _: Change(forgotten_kernels=("k",)))
    assert here()("adopted_kernels") == 0
    await opened.reserve(kernel)
    assert here()("adopted_kernels") == 0


# -------------------------------------------------------------------------- several servers


@pytest.mark.asyncio
async def test_the_gauges_show_the_latest_workspace_and_keep_none_alive() -> None:
    first, second = Workspace(LOG), Workspace(LOG)
    metrics.follow(first.reading)
    await first.transact(add(SESSION))
    assert here().counted("sessions") == {("live", "notebook"): 1}
    metrics.follow(second.reading)
    assert here().counted("sessions") == {}
    asleep = replace(SESSION, state=SessionState.DORMANT, type=None)
    await second.transact(add(asleep, replace(OTHER, type="x" * 1000)))
    assert here().counted("sessions") == {("dormant", "other"): 1, ("live", "other"): 1}

    first.close()
    second.close()
    known = weakref.ref(second)
    del first, second
    gc.collect()
    assert known() is None
    assert here().counted("sessions") == {}


Fetch = Callable[..., Awaitable[Any]]


@pytest.fixture
def jp_server_config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {
        "ServerApp": {"jpserver_extensions": {"jupyter_sessions_ext": True}, **request.param},
        "SessionsApp": {"kernels_on_stop": "shutdown"},
    }


@pytest.mark.parametrize(
    ("jp_server_config", "counted"),
    [
        ({}, {("live", "notebook"): 1}),
        # Its sessions are left to jupyter_server's manager.
        ({"session_manager_class": "configured.CursorSessions"}, {}),
    ],
    indirect=["jp_server_config"],
    ids=["ours", "cursor"],
)
async def test_servers_that_come_and_go_in_one_process_are_told_apart(
    jp_fetch: Fetch, jp_serverapp: ServerApp, counted: dict[tuple[str, ...], float]
) -> None:
    assert Scrape.of((await jp_fetch("metrics")).body.decode()).counted("sessions") == {}
    body = json.dumps({"path": "a.ipynb", "type": "notebook"})
    await jp_fetch("api", "sessions", method="POST", body=body)
    scrape = Scrape.of((await jp_fetch("metrics")).body.decode())
    assert scrape.counted("sessions") == counted
