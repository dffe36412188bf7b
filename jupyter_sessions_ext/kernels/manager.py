"""All kernels of a server: started under a reservation, adopted, and kept when it stops."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any

import zmq
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.multikernelmanager import DuplicateKernelError
from jupyter_server.prometheus.metrics import KERNEL_CURRENTLY_RUNNING_TOTAL
from tornado import web
from tornado.ioloop import IOLoop
from traitlets.utils.importstring import import_item

from ..errors import StoreUnavailableError, ValueRefusedError
from ..host import identify, is_running, machine_id
from ..models import SYSTEM, Change, KernelPhase, KernelRecord, SessionRecord
from ..workspace import new_kernel
from .kernel import DurableKernelMixin
from .logs import LogKeeper
from .process import signal_group
from .recording import RecordingMixin
from .recovery import recover

starting_for: ContextVar[SessionRecord | None] = ContextVar("starting_for", default=None)
"""The session that kernels started in this context are for."""

STOP_TIMEOUT = 2.0
"""Seconds that a stopping server waits for each thing under way (it is killed after 10 s)."""

IDLE_ANSWER = 5.0
"""Seconds in which an idle kernel answers: what takes longer was a cell, though not recorded."""


_KERNEL_ID = re.compile(r"[\w.:@+-]{1,100}", re.ASCII)
_KERNEL_ID_IS = "1 to 100 letters, digits or any of . : @ + - _"


def _is_over(record: KernelRecord) -> bool:
    """Tell whether a recorded kernel is known not to run."""
    if record.machine != machine_id() or record.is_elsewhere:
        return False
    return record.process is None or not is_running(record.process)


def _is_durable(kernel: Any) -> bool:
    return isinstance(kernel, DurableKernelMixin)


class KernelIdTakenError(DuplicateKernelError, web.HTTPError):
    """The id that a client chose is that of another kernel; status 409."""

    def __init__(self, kernel_id: str, why: str) -> None:
        web.HTTPError.__init__(self, 409, f"Kernel {kernel_id} {why}")


class DurableMappingMixin(RecordingMixin):
    """Stands in front of a mapping kernel manager class; like it where kernels are not kept."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._reasons: dict[str, str] = {}
        self._logs = LogKeeper(self.workspace)
        self._adopted: list[str] = []
        self._starting: dict[str, asyncio.Future[None]] = {}
        self._stopping = False
        self.workspace.open(self.parent.root_dir if self.parent else self.root_dir)
        if self.workspace.place is not None:
            recover(self.workspace, self._adopt if self._can_adopt() else None)
            self.workspace.finish_merge()
            if self._adopted:
                # It runs as soon as the loop does, under any application.
                IOLoop.current().add_callback(self._probe, list(self._adopted))
        atexit.register(self._end_at_exit)

    def __bool__(self) -> bool:
        # ServerApp.cleanup_kernels skips shutdown_all for a manager that is falsy when empty.
        return True

    @property
    def _keeps_on_stop(self) -> bool:
        return self.workspace.keeps_kernels and self.workspace.kernels_on_stop == "keep"

    def _can_adopt(self) -> bool:
        return self.workspace.keeps_kernels and issubclass(
            import_item(self.kernel_manager_class), AsyncKernelManager
        )

    def _create_kernel_manager_factory(self) -> Callable[..., Any]:
        """Make the factory as jupyter_client does, for our class in front of the configured."""
        cls = import_item(self.kernel_manager_class)
        if not issubclass(cls, AsyncKernelManager):
            self.log.warning(
                "%s is not asynchronous: its kernels end with the server.", cls.__name__
            )
        elif not issubclass(cls, DurableKernelMixin):
            cls = type(f"Durable{cls.__name__}", (DurableKernelMixin, cls), {})

        def create(*args: Any, **kwargs: Any) -> Any:
            if self.shared_context:
                if self.context.closed:
                    self.context = self._context_default()
                kwargs.setdefault("context", self.context)
            return cls(*args, **kwargs)

        return create

    # ------------------------------------------------------------------ start and end of a kernel

    async def start_kernel(  # type: ignore[override]
        self, *, kernel_id: str | None = None, path: Any = None, **kwargs: Any
    ) -> str:
        """Start a kernel as the class behind does, under a reservation.

        :raises tornado.web.HTTPError: 503, the reservation cannot be stored, or the server is
            stopping; 400, the id that a client chose cannot be used; nothing was started
        :raises KernelIdTakenError: it is starting, or runs without having been adopted
        """
        try:
            self.workspace.refuse_unusable()
        except StoreUnavailableError as error:
            raise web.HTTPError(503, str(error)) from error
        if not self.workspace.keeps_kernels or (kernel_id is not None and kernel_id in self):
            return await super().start_kernel(kernel_id=kernel_id, path=path, **kwargs)
        kernel_id = kernel_id or self.new_kernel_id(**kwargs)
        if not _KERNEL_ID.fullmatch(kernel_id):
            raise web.HTTPError(400, f"kernel id: {_KERNEL_ID_IS}")
        if kernel_id in self._starting:
            raise KernelIdTakenError(kernel_id, "is being started")
        record = self.workspace.registry.kernels.get(kernel_id)
        if record is not None and not _is_over(record):
            raise KernelIdTakenError(kernel_id, "runs, but is not this server's")
        self._starting[kernel_id] = asyncio.get_running_loop().create_future()
        try:
            return await self._start_reserved(kernel_id, path, kwargs)
        finally:
            self._starting.pop(kernel_id).set_result(None)

    async def _start_reserved(self, kernel_id: str, path: Any, kwargs: dict[str, Any]) -> str:
        self._refuse_when_stopping()
        await self._reserve(kernel_id, kwargs.get("kernel_name"))
        try:
            self._refuse_when_stopping()
            started = await super().start_kernel(kernel_id=kernel_id, path=path, **kwargs)
        except Exception as error:
            await self._undo_start(kernel_id)
            if isinstance(error, StoreUnavailableError):
                raise web.HTTPError(503, str(error)) from error
            raise
        if started != kernel_id:  # the class behind chooses its own ids
            self.workspace.kernel_gone(kernel_id, "")
        self._logs.start()
        return started

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise web.HTTPError(503, "The server is stopping.")

    async def _undo_start(self, kernel_id: str) -> None:
        """Leave neither a process nor a record of a kernel that did not start to its end."""
        if kernel_id in self._kernels:
            with contextlib.suppress(Exception):
                await super().shutdown_kernel(kernel_id, now=True)
            self._kernels.pop(kernel_id, None)
        self._drop_failed_starts()
        record = self.workspace.registry.kernels.get(kernel_id)
        if record is not None and record.process is not None:
            signal_group(record.process, signal.SIGKILL)
        self.workspace.kernel_gone(kernel_id, "its kernel did not start")
        await self.workspace.settled()

    async def _reserve(self, kernel_id: str, kernel_name: str | None) -> None:
        kernel_name = kernel_name or self.default_kernel_name
        session = starting_for.get()
        if session is not None:
            session = replace(session, kernel_id=kernel_id, kernel_name=kernel_name)
        record = replace(
            new_kernel(
                kernel_id,
                kernel_name,
                os.path.join(self.connection_dir, f"kernel-{kernel_id}.json"),
            ),
            intent=session,
        )
        try:
            await self.workspace.reserve(record)
        except StoreUnavailableError as error:
            raise web.HTTPError(503, str(error)) from error
        except ValueRefusedError as error:
            raise web.HTTPError(400, f"This cannot be stored: {error}") from error

    def _drop_failed_starts(self) -> None:
        """Forget starts that failed: jupyter_client keeps them, and then shutdown_all raises."""
        for kernel_id, task in list(self._pending_kernels.items()):
            if task.done() and kernel_id not in self._kernels:
                del self._pending_kernels[kernel_id]

    async def shutdown_kernel(  # type: ignore[override]
        self, kernel_id: str, now: bool = False, restart: bool = False
    ) -> None:
        """End a kernel as the class behind does, and record that before it begins."""
        if kernel_id in self and not restart:
            await self.workspace.stopping([kernel_id])
            await self._until_restarted(kernel_id)
        try:
            await super().shutdown_kernel(kernel_id, now=now, restart=restart)
        except Exception:
            if kernel_id in self and not restart:
                if await self._kernels[kernel_id].is_alive():
                    self.workspace.not_stopping(kernel_id)
                else:
                    self.remove_kernel(kernel_id)
            raise
        finally:
            await self.workspace.settled()

    async def _until_restarted(self, kernel_id: str) -> None:
        """Wait while a kernel is being restarted: jupyter_client would fail to end it."""
        timeout = STOP_TIMEOUT if self._stopping else None
        while kernel_id in self._kernels and kernel_id not in self._pending_kernels:
            ready = self._kernels[kernel_id].ready
            if ready.done():
                return
            if isinstance(ready, Future):  # it was made before the loop ran
                ready = asyncio.wrap_future(ready)
            done, _ = await asyncio.wait([ready], timeout=timeout)
            if not done:
                return

    def remove_kernel(self, kernel_id: str) -> Any:
        """Forget a kernel: every end of a kernel comes through here."""
        removed: Any = super().remove_kernel(kernel_id)
        if _is_durable(removed):
            removed.is_removed = True
        self._drop_failed_starts()
        # An external one goes on, and is found again; jupyter_client would fail when it ends.
        self.kernel_id_to_connection_file.pop(kernel_id, None)
        if self.workspace.keeps_kernels:
            self._end_unowned(removed)
        if removed is not None and not self.workspace.closing:
            # A timer that was set in a request still has that request's user.
            reason = self._reasons.get(kernel_id)
            user = SYSTEM if reason else None
            self.workspace.kernel_gone(kernel_id, reason or "shut down", user)
        return removed

    def _end_unowned(self, kernel: Any) -> None:
        """Kill a kernel that is forgotten while it runs.

        So jupyter_client forgets one that it failed to shut down once; then its end was up to the
        kernel itself, which noticed when the server was gone.
        """
        process = getattr(getattr(kernel, "provisioner", None), "process", None)
        if process is not None and process.poll() is None:
            identity = identify(process.pid)
            if identity is not None:
                self.log.warning("Kernel %s could not be shut down: killed.", kernel.kernel_id)
                signal_group(identity, signal.SIGKILL)

    @contextlib.contextmanager
    def _because(self, kernel_id: str, reason: str) -> Iterator[None]:
        self._reasons[kernel_id] = reason
        try:
            yield
        finally:
            self._reasons.pop(kernel_id, None)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """Cull as the class behind does; it is the reason that its sessions are given."""
        self.hear()  # one that has just begun to work is not idle
        with self._because(kernel_id, "culled"):
            await super().cull_kernel_if_idle(kernel_id)

    def _handle_kernel_died(self, kernel_id: str) -> None:
        with self._because(kernel_id, "died"):
            super()._handle_kernel_died(kernel_id)

    # ------------------------------------------------------------------ adoption

    def _adopt(self, record: KernelRecord) -> None:
        """Take charge of one running kernel; see :meth:`.kernel.DurableKernelMixin.adopt`."""
        kernel_id = record.kernel_id
        kernel = self.kernel_manager_factory(
            connection_file=record.connection_file,
            parent=self,
            log=self.log,
            kernel_name=record.kernel_name,
            kernel_spec_manager=self.kernel_spec_manager,
        )
        try:
            kernel.adopt(record)
            # Before it is heard: what is heard of a kernel that is kept is for the keeper, too.
            self.keep_recorded(kernel, is_new=False, is_busy=record.execution_state == "busy")
            self._take_charge(kernel, record)
        except BaseException:
            self._kernels.pop(kernel_id, None)
            self.keeper.forget(kernel_id, has_transcript=True)
            kernel.release()
            raise
        KERNEL_CURRENTLY_RUNNING_TOTAL.labels(type=kernel.kernel_name).inc()
        if not self._initialized_culler:
            self.initialize_culler()
        self._adopted.append(kernel_id)
        self._logs.start()

    def _take_charge(self, kernel: Any, record: KernelRecord) -> None:
        kernel_id = record.kernel_id
        self._kernels[kernel_id] = kernel
        self._kernel_connections[kernel_id] = 0
        self._kernel_ports[kernel_id] = kernel.ports
        self.start_watching_activity(kernel_id)
        # Busy until it has answered: an idle kernel would be nudged and culled, and nudging one
        # that runs a cell holds back its output until the cell ends.
        kernel.execution_state = "busy"
        kernel.last_activity = record.last_activity
        self.last_kernel_activity = max(self.last_kernel_activity, record.last_activity)
        self.add_restart_callback(kernel_id, lambda: self._handle_kernel_died(kernel_id), "dead")

    def _probe(self, kernel_ids: Iterable[str]) -> None:
        """Ask adopted kernels, all at once, whether they are idle: only an idle one answers."""
        for kernel_id in kernel_ids:
            kernel = self._kernels.get(kernel_id)
            if kernel is None:
                continue
            stream = kernel.connect_shell()
            record = self.workspace.registry.kernels[kernel_id]
            stream.on_recv(partial(self._answered, kernel, stream, record, time.monotonic()))
            # A kernel that died meanwhile must not hold up the end of the server.
            stream.socket.setsockopt(zmq.LINGER, 0)
            kernel.session.send(stream, "kernel_info_request")

    def _answered(
        self, kernel: Any, stream: Any, record: KernelRecord, asked: float, _: list[bytes]
    ) -> None:
        stream.close()
        if kernel.execution_state == "busy":
            kernel.execution_state = "idle"
        if record.execution_state != "busy" and time.monotonic() - asked < IDLE_ANSWER:
            # It was idle all the time: the question itself is no activity.
            kernel.last_activity = record.last_activity

    # ------------------------------------------------------------------ the server's end

    async def shutdown_all(self, now: bool = False) -> None:  # type: ignore[override]
        """End all kernels, or keep them, as ``SessionsApp.kernels_on_stop`` says.

        It never raises: a server that is asked to stop must stop.
        """
        self._stopping = True
        self.close_port_unless_restarted()
        started = [*self._starting.values(), *self._pending_kernels.values()]
        if started:
            await asyncio.wait(started, timeout=STOP_TIMEOUT)
        self._drop_failed_starts()
        try:
            if self._keeps_on_stop:
                await self._keep_all()
            else:
                with contextlib.suppress(asyncio.TimeoutError):
                    stopping = self.workspace.stopping(list(self._kernels))
                    await asyncio.wait_for(stopping, STOP_TIMEOUT)
                await super().shutdown_all(now=now)
        except Exception:
            self.log.exception("Not every kernel was shut down as it should be.")
        if not self._keeps_on_stop:
            await self._end_rest()
        atexit.unregister(self._end_at_exit)
        self._logs.stop()
        await self.stop_recording()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._commit_the_rest(), STOP_TIMEOUT)

    async def _commit_the_rest(self) -> None:
        await self.workspace.settled()
        await self.workspace.stopped()

    def _end_at_exit(self) -> None:
        """Do what must be done where the server ends without ``shutdown_all``.

        So it does at Ctrl-C without a terminal. Kernels that are not to be kept are ended: stock
        ones would notice that the server is gone.
        """
        if self._keeps_on_stop:
            return
        ending = self._recorded()
        self.workspace.commit_now(
            Change(kernels=tuple(replace(k, phase=KernelPhase.STOPPING) for k in ending))
        )
        for kernel in ending:
            if kernel.process is not None:
                signal_group(kernel.process, signal.SIGTERM)

    async def _end_rest(self) -> None:
        """End what a failed shutdown has left: it would outlive the server."""
        left = self._recorded()
        deadline = time.monotonic() + STOP_TIMEOUT
        while left and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            left = [record for record in left if not _is_over(record)]
        for record in left:
            if record.process is not None:
                self.log.error("Kernel %s is killed.", record.kernel_id)
                signal_group(record.process, signal.SIGKILL)

    def _recorded(self) -> list[KernelRecord]:
        """Return the records of this server's kernels whose processes still run."""
        kernels = self.workspace.registry.kernels
        records = [kernels[k] for k in (*self._kernels, *self._starting) if k in kernels]
        return [r for r in records if r.process is not None and is_running(r.process)]

    async def _keep_all(self) -> None:
        self.workspace.closing = True
        kept = []
        for kernel_id, kernel in self._kernels.items():
            if _is_durable(kernel):
                self._active.add(kernel_id)
                with contextlib.suppress(Exception):
                    self.stop_watching_activity(kernel_id)
                with contextlib.suppress(Exception):
                    kernel.release()
                if kernel.has_kernel:
                    kept.append(kernel_id)
        self._record_activity()
        for kernel_id in [k for k, v in self._kernels.items() if not _is_durable(v)]:
            with contextlib.suppress(Exception):
                await super().shutdown_kernel(kernel_id)
        if kept:
            # They stay in the map: an answer without them would make clients give them up.
            self.log.info(
                "%d kernel(s) stay running for the next server%s. To end all that are kept: %s",
                len(kept),
                f", and port {port} stays open for it" if (port := self.keeper.held_port) else "",
                self.workspace.stop_command,
            )
