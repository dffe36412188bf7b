"""The local provisioner, for kernels that outlive the server."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from ..host import KERNEL_MARK
from .process import AdoptedProcess

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo

    from ..workspace import Workspace

SESSION_MARK = "JUPYTER_SESSIONS_SESSION"
"""Environment variable with the session that a kernel was started for, should records be lost."""


class DurableProvisionerMixin(LocalProvisioner):
    """Stands in front of a :class:`LocalProvisioner` class; its kernel need not end with us."""

    @property
    def _workspace(self) -> Workspace:
        workspace: Workspace = self.parent.workspace  # type: ignore[union-attr]
        return workspace

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Mark the kernel as ours, and untie it from the server's process."""
        kwargs = await super().pre_launch(**kwargs)
        env = kwargs["env"]
        # independent=True leaves it unset, but the server itself may have inherited one.
        env.pop("JPY_PARENT_PID", None)
        place = self._workspace.place
        env[KERNEL_MARK] = f"{place.key if place else ''}:{self.kernel_id}"
        registry = self._workspace.registry
        kernel = registry.kernels.get(self.kernel_id)
        session = next(iter(registry.of_kernel(self.kernel_id)), kernel.intent if kernel else None)
        env.pop(SESSION_MARK, None)
        if session is not None:
            env[SESSION_MARK] = json.dumps(session.row())
        return kwargs

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Launch with a log file instead of the server's own streams.

        An inherited terminal or pipe blocks the kernel for ever once its reader is gone.
        """
        kwargs["independent"] = True
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        place = self._workspace.place
        log = place.log_file(self.kernel_id) if place else os.devnull
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await super().launch_kernel(cmd, **{"stdout": file, "stderr": file, **kwargs})
        finally:
            os.close(file)

    async def send_signal(self, signum: int) -> None:
        """Signal the kernel's process group, unless the process is not provably the kernel."""
        if isinstance(self.process, AdoptedProcess) and self.process.poll() is not None:
            return
        await super().send_signal(signum)


@functools.cache
def durable(cls: Any) -> Any:
    """Return a local provisioner's class with :class:`DurableProvisionerMixin` in front."""
    if issubclass(cls, DurableProvisionerMixin):
        return cls
    return type(f"Durable{cls.__name__}", (DurableProvisionerMixin, cls), {})
