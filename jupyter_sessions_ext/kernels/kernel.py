"""One kernel that outlives the server: recorded at every start, and adoptable."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import uuid
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.connect import LocalPortCache
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_core.utils import run_sync
from traitlets import Instance, Unicode

from ..errors import AdoptionError, KernelGoneError, StoreUnavailableError
from ..folder import read_object
from ..host import KERNEL_MARK, environment, identify, machine_id
from ..models import KernelPhase, KernelRecord
from .process import AdoptedProcess
from .provisioner import durable

if TYPE_CHECKING:
    from ..workspace import Workspace

_NOT_KEPT = {"env", "stdin", "stdout", "stderr"}
"""Launch arguments that are never stored: secrets, and descriptors of this process."""

_OF_THE_HUB = ("JUPYTERHUB_", "JPY_API_TOKEN")
"""Variables that belong to the server's own run, not to the kernel's."""


class DurableKernelMixin(AsyncKernelManager):
    """Stands in front of a kernel manager class; does nothing where kernels are not kept."""

    # Kernel managers that do not derive from jupyter_server's lack these two traits.
    execution_state = Unicode(None, allow_none=True)
    last_activity = Instance(datetime)
    # jupyter_server sets it, as a plain attribute, to why the kernel does not answer.
    reason = Unicode("")
    is_removed = False
    """Whether the mapping manager has forgotten it, as when it is ended during a restart."""

    @property
    def workspace(self) -> Workspace:
        """The workspace of the mapping manager that made this."""
        workspace: Workspace = self.parent.workspace  # type: ignore[union-attr]
        return workspace

    # ------------------------------------------------------------------ every start

    async def _async_pre_start_kernel(self, **kwargs: Any) -> tuple[list[str], dict[str, Any]]:
        if self.workspace.keeps_kernels and self.provisioner is None:
            self.kernel_id = self.kernel_id or kwargs.pop("kernel_id", None) or str(uuid.uuid4())
            self._provision()
        return await super()._async_pre_start_kernel(**kwargs)

    pre_start_kernel = _async_pre_start_kernel

    def _provision(self) -> None:
        """Make the provisioner, a durable one where it is local."""
        provisioner = KernelProvisionerFactory.instance(
            parent=self.parent
        ).create_provisioner_instance(self.kernel_id, self.kernel_spec, parent=self)
        if isinstance(provisioner, LocalProvisioner):
            config = (self.kernel_spec.metadata if self.kernel_spec else {}).get(
                "kernel_provisioner", {}
            )
            provisioner = durable(type(provisioner))(  # type: ignore[arg-type]
                kernel_id=self.kernel_id,
                kernel_spec=self.kernel_spec,
                parent=self,
                **config.get("config", {}),
            )
        self.provisioner = provisioner

    async def _async_post_start_kernel(self, **kwargs: Any) -> None:
        if self.workspace.keeps_kernels:
            # Before anything else: the process exists, and a crash must find it recorded.
            try:
                self._refuse_removed()
                await self.workspace.running(await self._record())
                self._refuse_removed()
            except Exception as error:
                if self.is_removed or self.kernel_id not in self.parent:  # type: ignore[operator]
                    await self._end_unseen()
                    raise
                if not isinstance(error, StoreUnavailableError):  # which is logged
                    self.log.exception("The restart of kernel %s is not recorded", self.kernel_id)
        await super()._async_post_start_kernel(**kwargs)
        self.parent.follow_ports(self.kernel_id)  # type: ignore[union-attr]
        self.parent.keep_recorded(self, is_new=True)  # type: ignore[union-attr]

    post_start_kernel = _async_post_start_kernel

    def cleanup_random_ports(self) -> None:
        """Have all ports chosen anew at the next start, also those that were chosen beforehand.

        jupyter_client means to do that when a kernel ends before it is up, as where a port was
        taken meanwhile; but it keeps those of its cache, and such a kernel would end each time.
        """
        super().cleanup_random_ports()
        provisioner = self.provisioner
        if isinstance(provisioner, LocalProvisioner) and provisioner.ports_cached:
            for port in self.ports:
                LocalPortCache.instance().return_port(port)
            provisioner.ports_cached = False
            self.cleanup_connection_file()

    def _refuse_removed(self) -> None:
        if self.is_removed:
            raise KernelGoneError(self.kernel_id, "it was ended while it was being restarted")

    async def _end_unseen(self) -> None:
        """End a process that nobody has seen yet: it is not, or no longer, in the manager."""
        assert self.provisioner is not None
        await self.provisioner.kill()
        if self.is_removed:
            self.cleanup_connection_file()
            if self.kernel_id not in self.parent:  # type: ignore[operator]
                self.workspace.kernel_gone(self.kernel_id, "shut down")

    async def _record(self) -> KernelRecord:
        provisioner = self.provisioner
        assert provisioner is not None
        plain = type(provisioner) is durable(LocalProvisioner)
        pid = provisioner.pid if isinstance(provisioner, LocalProvisioner) else None
        return KernelRecord(
            kernel_id=self.kernel_id,
            kernel_name=self.kernel_name,
            phase=KernelPhase.RUNNING,
            machine=machine_id(),
            connection_file=self.connection_file,
            connection=dict(self.get_connection_info()),
            launch={k: v for k, v in (self._launch_args or {}).items() if _is_kept(k, v)},
            provisioner={} if plain else await provisioner.get_provisioner_info(),
            process=identify(pid) if pid else None,
        )

    # ------------------------------------------------------------------ adoption

    def adopt(self, record: KernelRecord) -> None:
        """Take charge of a kernel that an earlier server started.

        It is wholly synchronous: the loop need not run yet. ``FACTS``: each attribute that is set
        here is one without which a later restart, cull, crash or connection goes wrong.

        :raises AdoptionError: it cannot be done; the kernel is left as it was
        :raises KernelGoneError: it does not run any more
        """
        self.kernel_id = record.kernel_id
        self.load_connection_info(_connection(record))
        if self._requires_encryption() and not self.curve_publickey:
            raise AdoptionError(record.kernel_id, "transport_encryption is 'required'")
        self._connection_file_written = True  # ours: kept by a restart, removed at its end
        self._attempted_start = True  # else a restart answers through the future of this start
        pid = record.process.pid if record.process else None
        launch = dict(record.launch)
        launch["env"] = self._environment(pid)
        self._launch_args = launch
        try:
            self._provision()
        except (NoSuchKernel, ModuleNotFoundError) as error:
            self.forget()
            raise AdoptionError(record.kernel_id, str(error)) from error
        self._provision_adopted(record)
        if not self._connection_file_exists():
            self._connection_file_written = False
            self.write_connection_file()
        self.start_restarter()
        if self._restarter is not None:
            self._restarter._initial_startup = False  # else an early crash would move the ports
        self._connect_control_socket()
        known: Future[dict[str, Any]] = Future()
        known.set_result({})
        self._kernel_info_future = known  # else a connection waits for a busy kernel to answer
        if not self.ready.done():
            self.ready.set_result(None)

    def _requires_encryption(self) -> bool:
        return getattr(self.parent, "transport_encryption", "disabled") == "required"

    def _provision_adopted(self, record: KernelRecord) -> None:
        provisioner = self.provisioner
        assert provisioner is not None
        if record.provisioner:
            self._load_provisioner(record)
        if isinstance(provisioner, LocalProvisioner):
            if record.process is None:
                raise KernelGoneError(record.kernel_id, "its process is not known")
            provisioner.pid = record.process.pid
            with contextlib.suppress(OSError):
                # Only a group that it leads is its own to be signalled.
                is_leader = os.getpgid(record.process.pid) == record.process.pid
                provisioner.pgid = record.process.pid if is_leader else None
            provisioner.ip = self.ip
            provisioner.cwd = record.launch.get("cwd")
            provisioner.connection_info = self.get_connection_info()
            provisioner.process = AdoptedProcess(record.process)  # type: ignore[assignment]
            if self.cache_ports:
                provisioner.ports_cached = True  # else a restart would choose new ports
                LocalPortCache.instance().currently_used_ports.update(self.ports)

    def _load_provisioner(self, record: KernelRecord) -> None:
        provisioner = self.provisioner
        assert provisioner is not None
        try:
            run_sync(provisioner.load_provisioner_info)(dict(record.provisioner))
            ended = run_sync(provisioner.poll)() if record.is_elsewhere else None
        except Exception as error:
            self.forget()
            raise AdoptionError(record.kernel_id, repr(error)) from error
        if ended is not None or (record.is_elsewhere and not provisioner.has_process):
            self.forget()
            raise KernelGoneError(record.kernel_id, "its provisioner says so")

    def _environment(self, pid: int | None) -> dict[str, str]:
        """Return the environment for a restart: the kernel's own, read from its process.

        So no secret of it is ever stored. What belongs to the server's run is the new server's.
        """
        env = environment(pid) if pid else {}
        place = self.workspace.place
        mark = env.get(KERNEL_MARK, "")
        if not place or not mark.endswith(f":{self.kernel_id}"):
            return dict(os.environ)
        env = {k: v for k, v in env.items() if not k.startswith(_OF_THE_HUB)}
        return env | {k: v for k, v in os.environ.items() if k.startswith(_OF_THE_HUB)}

    def _connection_file_exists(self) -> bool:
        return os.path.exists(self.connection_file)

    # ------------------------------------------------------------------ the server's end

    def release(self) -> None:
        """Let go of the kernel, which goes on running."""
        self.stop_restarter()
        self.forget()
        self._close_control_socket()
        child = getattr(self.provisioner, "process", None)
        if isinstance(child, subprocess.Popen):
            # Where the server is not all there is in its process, who else would reap it?
            threading.Thread(target=child.wait, name="kernel's end", daemon=True).start()

    def forget(self) -> None:
        """Keep this object's end from removing the connection file."""
        self._connection_file_written = False


def _connection(record: KernelRecord) -> Any:
    if record.connection:
        return dict(record.connection)
    connection = read_object(Path(record.connection_file))
    if not connection:
        raise AdoptionError(record.kernel_id, f"{record.connection_file} cannot be read")
    return connection


def _is_kept(name: str, value: Any) -> bool:
    if name in _NOT_KEPT:
        return False
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
