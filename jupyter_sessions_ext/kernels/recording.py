"""What kernels send is recorded: by the keeper, which every kernel here is made known to."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import zmq
from tornado.ioloop import IOLoop

from ..keeper.supervisor import Supervisor
from ..workspace import Workspace
from .activity import ActivityMixin
from .listener import Listener

MOST_WAITING = 100_000
"""Messages of a kernel that may wait for the server's loop."""

DOUBT_TIMEOUT = 1.0
"""Seconds after which it is doubted that a kernel is busy that the keeper has heard to be idle."""

_CATCH_UP_TIMEOUT = 1.0
"""Seconds for which it is waited for a message that a client has got already; it may be lost."""

_LOOK_INTERVAL = 0.001
"""Seconds between looks at whether a message has come that a client has got already."""


class Connection(Protocol):
    """A client's connection over the keeper."""

    def request(self, channel: str, frames: list[bytes]) -> None:
        """Send the client's message to the kernel."""

    def begin(self) -> None:
        """Pass on what has come, if all is ready."""

    def end(self) -> None:
        """Disconnect: the client has gone."""


class KeptStream:
    """What jupyter_server takes for a kernel's channel."""

    def __init__(self, connection: Connection, channel: str) -> None:
        self._connection = connection
        self.channel = channel
        self.callback: Callable[[KeptStream, list[bytes]], object] | None = None
        self._is_closed = False

    def send_multipart(self, parts: Sequence[Any], *_: Any, **__: Any) -> None:
        """Send a message to the kernel."""
        frames = [part.bytes if isinstance(part, zmq.Frame) else bytes(part) for part in parts]
        self._connection.request(self.channel, frames)

    def on_recv_stream(self, callback: Any) -> None:
        """Call with what the kernel sends."""
        self.callback = callback
        if callback is not None:
            self._connection.begin()

    on_recv = on_recv_stream

    def stop_on_recv(self) -> None:
        """Do not call any more."""
        self.callback = None

    def flush(self, *_: Any) -> None:
        """Do nothing: what has come has been passed on."""

    def closed(self) -> bool:
        """Tell whether it is closed."""
        return self._is_closed

    def close(self, *_: Any) -> None:
        """Close the channel; with it the client is disconnected."""
        self._is_closed = True
        self._connection.end()


class RecordingMixin(ActivityMixin):
    """Stands in front of a mapping kernel manager class."""

    workspace: Workspace

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # What is heard here must be complete, as far as that can be had, though a loop be slow.
        self.context.setsockopt(zmq.RCVHWM, MOST_WAITING)
        self.workspace.recorded_bytes = self._recorded_bytes
        self._doubted: set[str] = set()
        self._listeners: dict[str, Listener] = {}

    def _recorded_bytes(self) -> int:
        return self.keeper.journal_bytes if self.workspace.keeps_kernels else 0

    @functools.cached_property
    def keeper(self) -> Supervisor:
        """Who starts the keeper, and speaks with it."""
        place = self.workspace.place
        assert place is not None
        return Supervisor(
            place.keeper,
            self.log,
            limit=self.workspace.journal_limit,
            total=self.workspace.journal_total,
            orphan_timeout=self.workspace.orphan_timeout,
            idle=self._keeper_heard_idle,
        )

    def is_kept(self, kernel_id: str) -> bool:
        """Tell whether the keeper records a kernel."""
        return self.workspace.keeps_kernels and self.keeper.keeps(kernel_id)

    def keep_recorded(self, kernel: Any, *, is_new: bool, is_busy: bool = False) -> None:
        """Have a kernel recorded that was started, or adopted."""
        if self.workspace.keeps_kernels:
            record = self.workspace.registry.kernels.get(kernel.kernel_id)
            process = record.process if record else None
            info, place = kernel.get_connection_info(), self.workspace.place
            connection = {
                name: value.decode() if isinstance(value, bytes) else value
                for name, value in info.items()
                if name not in ("curve_secretkey",)
            }
            self.keeper.keep(
                kernel.kernel_id,
                connection=connection,
                process={"pid": process.pid, "started": process.started} if process else None,
                is_new=is_new,
                is_busy=is_busy,
                allowed=[*self.allowed_message_types],
                files={
                    "connection": os.path.abspath(kernel.connection_file),
                    "log": str(place.log_file(kernel.kernel_id)) if place else None,
                },
            )

    def start_watching_activity(self, kernel_id: str) -> None:
        """Watch as the class behind does; the keeper's successor gets what is heard, too."""
        super().start_watching_activity(kernel_id)
        if self.is_kept(kernel_id):
            heard = functools.partial(self.keeper.heard, kernel_id)
            self._listeners[kernel_id] = Listener(self, self._kernels[kernel_id], heard)

    def stop_watching_activity(self, kernel_id: str) -> None:
        """Watch no more; what has come is heard."""
        if (listener := self._listeners.pop(kernel_id, None)) is not None:
            listener.hear()
        super().stop_watching_activity(kernel_id)

    def kernel_model(self, kernel_id: str) -> Any:
        """Return a kernel's model, as the kernel is now."""
        if (listener := self._listeners.get(kernel_id)) is not None:
            listener.hear()
        return super().kernel_model(kernel_id)

    def hear(self) -> None:
        """Hear what kernels have published until now."""
        for listener in self._listeners.values():
            listener.hear()

    def shown(self, kernel_id: str, header: bytes) -> None:
        """Know of a state of a kernel that a client was told just now."""
        if (listener := self._listeners.get(kernel_id)) is not None:
            listener.shown(header)

    async def catch_up(self) -> None:
        """Know of kernels what clients do, who may hear of it some moments before."""
        self.hear()
        deadline = time.monotonic() + _CATCH_UP_TIMEOUT
        while behind := [one for one in self._listeners.values() if one.is_behind]:
            if time.monotonic() > deadline:
                for listener in behind:
                    listener.give_up()
                break
            await asyncio.sleep(_LOOK_INTERVAL)
            self.hear()

    def _keeper_heard_idle(self, kernel_id: str) -> None:
        """Ask a kernel that stays busy by what the server has heard: a flood loses some of it."""
        if self._seems_busy(kernel_id) and kernel_id not in self._doubted:
            self._doubted.add(kernel_id)
            IOLoop.current().call_later(DOUBT_TIMEOUT, self._ask_doubted, kernel_id)

    def _seems_busy(self, kernel_id: str) -> bool:
        kernel = self._kernels.get(kernel_id)
        return getattr(kernel, "execution_state", None) == "busy"

    def _ask_doubted(self, kernel_id: str) -> None:
        self._doubted.discard(kernel_id)
        if self._seems_busy(kernel_id):
            kernel = self._kernels[kernel_id]
            stream = kernel.connect_shell()
            stream.socket.setsockopt(zmq.LINGER, 0)

            def answered(_: object) -> None:
                stream.close()
                kernel.execution_state = "idle"

            stream.on_recv(answered)
            kernel.session.send(stream, "kernel_info_request")

    def start_buffering(self, kernel_id: str, session_key: str, channels: dict[str, Any]) -> None:
        """Keep nothing for a client that the keeper keeps all for."""
        if any(isinstance(channel, KeptStream) for channel in channels.values()):
            for channel in channels.values():
                channel.close()
        else:
            super().start_buffering(kernel_id, session_key, channels)

    def remove_kernel(self, kernel_id: str) -> Any:
        """Forget a kernel."""
        if kernel_id in self._listeners:  # it has died: else nobody would close its stream
            self.stop_watching_activity(kernel_id)
        has_transcript = self.workspace.will_have_session(kernel_id)
        removed: Any = super().remove_kernel(kernel_id)
        if self.workspace.keeps_kernels:
            self.keeper.forget(kernel_id, has_transcript=has_transcript)
        return removed

    def close_port_unless_restarted(self) -> None:
        """Have the port closed where the server is stopped for good.

        Whoever sends a signal may start another: service managers send SIGTERM, people press
        Ctrl-C. Told over REST, as by ``jupyter server stop``, it is to be gone.
        """
        is_told_by_signal = getattr(self.parent, "_stopping", False)
        if self.workspace.keeps_kernels and (
            self.workspace.kernels_on_stop != "keep" or not is_told_by_signal
        ):
            self.keeper.close_port()

    async def stop_recording(self) -> None:
        """Leave the keeper to itself."""
        if self.workspace.keeps_kernels:
            await self.keeper.close()
