"""What kernels do: it is recorded, and known to whoever shows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any

import zmq
from jupyter_server.services.kernels.kernelmanager import (
    AsyncMappingKernelManager,
    MappingKernelManager,
)
from tornado.ioloop import IOLoop

from ..models import KernelActivity
from ..workspace import Workspace
from .kernel import DurableKernelMixin

QUIET = 0.025
"""Seconds without activity after which it is committed: cells that follow one another at once need
not wait for commits. It is longer than kernels are not listened to, see :mod:`.listener`."""

ACTIVITY_INTERVAL = 0.25
"""Seconds after which it is committed at the latest."""

SETTLE_TIMEOUT = 0.1
"""Seconds for which whoever asks for activity waits until it is committed."""


class ActivityMixin(AsyncMappingKernelManager):
    """Stands in front of a mapping kernel manager class."""

    workspace: Workspace
    """Set on the class by :class:`~jupyter_sessions_ext.app.SessionsApp`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._active: set[str] = set()
        self._recording: object | None = None
        self._committing: asyncio.Future[Any] | None = None
        self._last_change = 0.0
        self._tracked: set[str] = set()
        self._changed: set[str] = set()

    # ------------------------------------------------------------------ record

    def start_watching_activity(self, kernel_id: str) -> None:
        """Watch as the class behind does, and record what is seen."""
        super().start_watching_activity(kernel_id)
        kernel = self._kernels[kernel_id]
        kernel.observe(self._activity_changed, names=["execution_state", "last_activity"])
        kernel.observe(self._model_changed, names=["execution_state", "last_activity", "reason"])
        self._changed.add(kernel_id)
        if isinstance(kernel, DurableKernelMixin):
            self._tracked.add(kernel_id)

    def follow_ports(self, kernel_id: str) -> None:
        """Go on with a kernel that was started again on other ports."""
        if kernel_id not in self._kernel_ports or self._get_changed_ports(kernel_id) is None:
            return
        self.stop_watching_activity(kernel_id)
        self.start_watching_activity(kernel_id)
        known = getattr(self._kernels[kernel_id], "_kernel_info_future", None)
        if known is not None and not known.done():
            self._ask_kernel_info(self._kernels[kernel_id], known)

    def _ask_kernel_info(self, kernel: Any, known: Future[Any]) -> None:
        """Ask in place of a connection that has asked, and waits, where the kernel was before."""
        stream = kernel.connect_shell()
        stream.socket.setsockopt(zmq.LINGER, 0)

        def answered(frames: list[bytes]) -> None:
            stream.close()
            message = kernel.session.deserialize(kernel.session.feed_identities(frames)[1])
            if not known.done():
                known.set_result(message["content"])

        stream.on_recv(answered)
        kernel.session.send(stream, "kernel_info_request")

    def _activity_changed(self, change: Any) -> None:
        self._active.add(change.owner.kernel_id)
        self._last_change = time.monotonic()
        self._record_soon()

    def _record_soon(self) -> None:
        if self._active and self._recording is None:
            self._record_when_quiet(time.monotonic() + ACTIVITY_INTERVAL)

    def _record_when_quiet(self, latest: float) -> None:
        left = min(self._last_change + QUIET, latest) - time.monotonic()
        if left > 0:
            look = partial(self._record_when_quiet, latest)
            self._recording = IOLoop.current().call_later(left, look)
        else:
            self._record_activity()

    def _record_activity(self) -> None:
        if self._recording is not None:
            IOLoop.current().remove_timeout(self._recording)
        self._committing = self.workspace.active(self._take_activity)
        self._committing.add_done_callback(self._recorded_activity)

    def _recorded_activity(self, committed: object) -> None:
        if committed is self._committing:
            self._committing = None
        self._recording = None
        self._record_soon()

    def hear(self) -> None:
        """Know of what kernels have published until now; the class behind does at once."""

    async def catch_up(self) -> None:
        """Know of kernels what clients do; the class behind always does."""

    async def settle(self) -> None:
        """Have committed what is known of kernels: what is shown then is not taken back.

        No client is told of an earlier state of a kernel than it has seen.
        """
        await self.catch_up()
        for _ in range(2):  # what is under way may be without the latest
            if self._active and self._committing is None:
                self._record_activity()
            if self._committing is None:
                break
            await asyncio.wait([self._committing], timeout=SETTLE_TIMEOUT)

    def _take_activity(self) -> Iterable[KernelActivity]:
        active, self._active = self._active, set()
        return [
            KernelActivity(
                kernel_id=kernel_id,
                execution_state=kernel.execution_state or "unknown",
                last_activity=kernel.last_activity,
            )
            for kernel_id, kernel in self._kernels.items()
            if kernel_id in active
        ]

    # ------------------------------------------------------------------ models

    def running(self) -> Container[str | None]:
        """Return the ids of the kernels that run, as fast to be asked as can be."""
        return self._kernels.keys()

    def is_tracked(self, kernel_id: str | None) -> bool:
        """Tell whether :meth:`take_changed` knows of every change of a kernel's model."""
        return kernel_id in self._tracked and kernel_id in self._kernels

    def take_changed(self) -> set[str]:
        """Return the kernels whose models may have changed since this was asked last."""
        self.hear()
        changed, self._changed = self._changed, set()
        return changed

    @classmethod
    def has_own_models(cls) -> bool:
        """Tell whether the class behind makes models of its own, of which nothing is known."""
        return super().kernel_model is not MappingKernelManager.kernel_model

    def _model_changed(self, change: Any) -> None:
        self._changed.add(change.owner.kernel_id)

    def notify_connect(self, kernel_id: str) -> None:
        """Count a connection, which the kernel's model shows."""
        super().notify_connect(kernel_id)
        self._changed.add(kernel_id)

    def notify_disconnect(self, kernel_id: str) -> None:
        """Count a connection no more."""
        super().notify_disconnect(kernel_id)
        self._changed.add(kernel_id)

    def remove_kernel(self, kernel_id: str) -> Any:
        """Forget a kernel."""
        self._changed.add(kernel_id)
        self._tracked.discard(kernel_id)
        return super().remove_kernel(kernel_id)
