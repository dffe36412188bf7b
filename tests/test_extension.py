"""The extension in a server of pytest-jupyter's: its start hook never runs there."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_server.serverapp import ServerApp

import jupyter_sessions_ext
from jupyter_sessions_ext.kernels.kernel import DurableKernelMixin
from jupyter_sessions_ext.kernels.manager import DurableMappingMixin

Fetch = Callable[..., Awaitable[Any]]
MANAGERS = "jupyter_server.services.kernels.kernelmanager"


@pytest.fixture
def jp_server_config() -> dict[str, Any]:
    return {
        "ServerApp": {"jpserver_extensions": {"jupyter_sessions_ext": True}},
        "SessionsApp": {"kernels_on_stop": "shutdown"},
    }


async def post(fetch: Fetch, *path: str, **body: Any) -> Any:
    reply = await fetch(*path, method="POST", body=json.dumps(body))
    return json.loads(reply.body)


async def test_a_session_is_created_changed_and_deleted(
    jp_fetch: Fetch, jp_serverapp: ServerApp
) -> None:
    assert isinstance(jp_serverapp.kernel_manager, DurableMappingMixin)
    assert isinstance(jp_serverapp.session_manager, jupyter_sessions_ext.SessionManager)
    model = await post(jp_fetch, "api", "sessions", path="a.ipynb", type="notebook")
    kernel = jp_serverapp.kernel_manager.get_kernel(model["kernel"]["id"])
    assert isinstance(kernel, DurableKernelMixin)
    again = await post(jp_fetch, "api", "sessions", path="a.ipynb", type="notebook")
    assert again["id"] == model["id"]
    url = ("api", "sessions", model["id"])
    await jp_fetch(*url, method="PATCH", body=json.dumps({"path": "b.ipynb"}))
    listed = json.loads((await jp_fetch("api", "sessions")).body)
    assert [(s["id"], s["path"]) for s in listed] == [(model["id"], "b.ipynb")]
    await jp_fetch(*url, method="DELETE")
    assert json.loads((await jp_fetch("api", "kernels")).body) == []


@pytest.mark.parametrize(
    "jp_server_config", [{"ServerApp": {"jpserver_extensions": {"jupyter_sessions_ext": True}}}]
)
async def test_a_kept_kernel_is_reaped_where_the_servers_process_goes_on(
    jp_fetch: Fetch, jp_serverapp: ServerApp
) -> None:
    model = await post(jp_fetch, "api", "sessions", path="a.ipynb", type="notebook")
    manager = jp_serverapp.kernel_manager
    provisioner = manager.get_kernel(model["kernel"]["id"]).provisioner
    assert isinstance(provisioner, LocalProvisioner)
    kernel = provisioner.process
    assert kernel is not None
    assert isinstance(manager, DurableMappingMixin)
    await manager.shutdown_all()
    try:
        assert kernel.returncode is None  # it is kept
    finally:
        kernel.kill()
    for thread in threading.enumerate():
        if thread.name == "kernel's end":
            thread.join(10)
    assert kernel.returncode == -signal.SIGKILL


async def test_the_state_is_its_users_alone(jp_fetch: Fetch, jp_serverapp: ServerApp) -> None:
    await post(jp_fetch, "api", "sessions", path="a.ipynb", type="notebook")
    state = Path(jp_serverapp.data_dir) / "jupyter_sessions_ext"
    for path in [state, *state.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    "jp_server_config",
    [
        {
            "ServerApp": {
                "jpserver_extensions": {"jupyter_sessions_ext": True},
                "kernel_manager_class": f"{MANAGERS}.AsyncMappingKernelManager",
            },
            "SessionsApp": {"kernels_on_stop": "shutdown"},
            "AsyncMappingKernelManager": {"use_pending_kernels": True},
        }
    ],
)
async def test_pending_kernels_work(jp_fetch: Fetch, jp_serverapp: ServerApp) -> None:
    assert isinstance(jp_serverapp.kernel_manager, DurableMappingMixin)
    model = await post(jp_fetch, "api", "sessions", path="a.ipynb", type="notebook")
    kernel = jp_serverapp.kernel_manager.get_kernel(model["kernel"]["id"])
    ready: Any = kernel.ready
    await ready
    await jp_fetch("api", "sessions", model["id"], method="DELETE")


def test_public_names() -> None:
    assert set(jupyter_sessions_ext.__all__) == {"SessionManager", "SessionsApp", "__version__"}
    for name in jupyter_sessions_ext.__all__:
        assert getattr(jupyter_sessions_ext, name)
    with pytest.raises(AttributeError):
        _ = jupyter_sessions_ext.nothing
