"""The keeper itself: kernels, their clients and the server, as far as there is one."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .kernel import Kernel, KernelFiles
from .kernels import Kernels, log
from .link import Link
from .listener import Listener
from .lock import Lock, is_leased
from .loop import Loop, Timer
from .memory import Memory
from .messages import Connection
from .port import HeldPort
from .process import KernelProcess, identity_of
from .protocol import (
    DAY,
    OLD_VERSION,
    VERSION,
    Kind,
    Packet,
    ProtocolError,
    ended_file,
    pack_json,
)
from .streams import Streams

LINGER = 5.0
"""Seconds for which the keeper stays when there is no kernel to keep."""

LAST_WORDS = 1.0
"""Seconds for which a kernel that has ended is heard: what it has sent may be under way."""

CONFIRM_INTERVAL = 1.0
"""Seconds after which it is noted what clients have: the server and the keeper may end together."""

RETURN_TIMEOUT = 5.0
"""Seconds in which a server that has lost its link, and runs on, has another one."""

TELL_INTERVAL = 0.1
"""Seconds after which the server hears what was recorded and forwarded: it keeps it until then."""

LOG_INTERVAL = 5.0
"""Seconds between looks at the kernels' logs, while there is no server."""

LEASE_INTERVAL = 0.5
"""Seconds after which it is looked again whether a server has the lease that has not said hello."""

LOOK_INTERVAL = 0.2
"""Seconds between looks at whether the folder is still there, while the port is held."""


class Keeper:
    """Records kernels, and hands over to servers.

    :param folder: its own, for its user alone
    :param lock: its lock
    """

    def __init__(self, folder: Path, lock: Lock) -> None:
        self._folder = folder
        self._lock = lock
        self._loop = Loop(log)
        self._kernels = Kernels(
            folder,
            self._loop,
            recorded=self._recorded,
            forwarded=self._tell_soon,
            spliced=self._spliced,
            ended=self._kernel_ended,
        )
        self._streams = Streams(self._kernels, self._loop)
        self._server: Link | None = None
        self._to_tell: set[Kernel] = set()
        self._telling: Timer | None = None
        self._confirming: Timer | None = None
        self._memory = Memory()
        self._dropping: dict[str, Timer] = {}
        self._orphan_timeout: float = DAY
        self._orphaned: Timer | None = None
        self._workspace: Path | None = None
        self._reasons: dict[str, str] = {}
        self._has_kept = False
        self._leaving: Timer | None = None
        self._port = HeldPort(self._loop, has_server=self._has_other_server)
        self._server_process: KernelProcess | None = None
        """That of the server, also when its link has ended and it has not."""
        self._returning: Timer | None = None
        self._listener = Listener(folder, self._loop, self._accepted)
        self._calls: dict[str, Callable[..., dict[str, Any] | None]] = {
            "hello": self._hello,
            "kernel": self._kernel,
            "forget": self._forget,
            "attach": self._streams.attach,
            "status": self._status,
            "retire": self._retire,
            "hold_port": self._hold_port,
            "take_port": self._port.take,
            "give_up_port": self._port.give_up,
            "ping": lambda *_, **__: {},
            "take_connection": lambda *_, **__: {},
        }
        self._notes: dict[str, Callable[..., None]] = {
            "detach": self._streams.detach,
            "close_port": self._port.close,
            "passed_on": self._streams.passed_on,
            "hold": _hold_nothing,
            "let_go": lambda *_, **__: None,
        }

    # ------------------------------------------------------------------ life

    def run(self) -> None:
        """Keep, until there is nothing to be kept."""
        self._listener.listen()
        self._leave_when_idle()
        self._expect_server()
        log(f"keeper {os.getpid()} of protocol {VERSION} is there")
        try:
            self._loop.run()
        finally:
            self._port.close()
            self._listener.close()
        log("keeper ends")

    def _accepted(self, connection: socket.socket) -> None:
        Link(self._loop, connection, self._received, self._ended)

    def _ended(self, link: Link, reason: str) -> None:
        """Wait for the end of a server whose link has ended, unless it comes back."""
        if link is not self._server:
            self._streams.detach_all(link)
            return
        self._server = None
        log(f"no server: {reason}")
        self._port.wait()
        if self._server_process is None or self._server_process.has_ended:
            self._server_gone()
        else:
            self._streams.suspend_all()
            self._returning = self._loop.call_later(RETURN_TIMEOUT, self._server_left)

    def _server_process_ended(self) -> None:
        if self._server is None:
            self._server_gone()

    def _server_left(self) -> None:
        """Take a server for gone whose process lives, and has its clients' connections yet."""
        self._streams.release_all()
        self._server_gone()

    def _server_gone(self) -> None:
        self._forget_server_process()
        self._streams.detach_all()
        for kernel in self._kernels:
            if kernel.has_ended:
                self._kernel_ended(kernel)
        self._leave_when_idle()
        self._expect_server()
        self._shorten_logs()
        self._give_up_idle_port()

    def _shorten_logs(self) -> None:
        """Keep kernels' logs from filling the disk, as a server does that is there."""
        if self._server is None:
            for kernel in self._kernels:
                kernel.shorten_log()
            self._loop.call_later(LOG_INTERVAL, self._shorten_logs)

    def _forget_server_process(self) -> None:
        if self._returning is not None:
            self._returning.cancel()
        if self._server_process is not None:
            self._server_process.close()
            self._server_process = None

    def _has_other_server(self, link: Link) -> bool:
        """Tell whether there is a server that is not the one at the other end."""
        server = self._server
        return server is not None and (link.process is None or server.process != link.process)

    def _give_up_idle_port(self) -> None:
        """Hold no port for kernels of which only the last words are to come."""
        if self._server is None and all(k.kernel_id in self._dropping for k in self._kernels):
            self._port.close()

    def _leave_when_idle(self) -> None:
        """End soon if there is no kernel by then; at once after the last, without a server."""
        if not self._kernels:
            self._stay()
            seconds = 0 if self._has_kept and not self._server else LINGER
            self._leaving = self._loop.call_later(seconds, self._loop.stop)

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()

    def _retire(self, link: Link, answer: object) -> dict[str, Any]:
        """Leave kernels and rings to another keeper."""
        self._loop.call_later(0, self._loop.stop)
        return {}

    # ------------------------------------------------------------------ no server

    def _expect_server(self) -> None:
        """End the kernels if nobody comes back for them."""
        self._look_at_folder()
        if self._orphan_timeout:
            self._orphaned = self._loop.call_later(self._orphan_timeout, self._reap)

    def _look_at_folder(self) -> None:
        """End without a word when it was removed: the next server keeps all elsewhere."""
        if (reason := self._lock.lost()) is not None:
            log(reason)
            self._loop.stop()
        elif self._server is None:
            seconds = LOOK_INTERVAL if self._port.address else 100 * LOOK_INTERVAL
            self._loop.call_later(seconds, self._look_at_folder)

    def _reap(self) -> None:
        if self._workspace is not None and is_leased(self._workspace):
            # A server that starts adopts kernels before its loop runs, and says hello after that.
            self._orphaned = self._loop.call_later(LEASE_INTERVAL, self._reap)
            return
        reason = f"no server came back for it in {self._orphan_timeout:.0f} s"
        log(f"the kernels are ended: {reason}")
        self._port.close()
        self._reasons |= {kernel.kernel_id: reason for kernel in self._kernels}
        self._note_reasons()  # a server that starts from now on adopts none of them
        for kernel in self._kernels:
            kernel.end()
            if kernel.process is None or kernel.has_ended:
                self._drop_soon(kernel.kernel_id)

    def _note_reasons(self) -> None:
        """Tell the next server why kernels have ended."""
        draft = self._folder / "ended.new"
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(self._reasons))
            draft.replace(ended_file(self._folder))

    def _kernel_ended(self, kernel: Kernel) -> None:
        """Forget a kernel whose end no server has to see to."""
        if self._server is None:
            log(f"kernel {kernel.kernel_id} has ended")
            kernel.remove_connection_file()
            self._drop_soon(kernel.kernel_id)

    # ------------------------------------------------------------------ what is received

    def _received(self, link: Link, packet: Packet) -> None:
        if packet.kind is Kind.REQUEST:
            self._streams.request(link, packet)
        elif packet.kind is Kind.FED:
            kernel, *frames = packet.frames
            if kept := self._kernels.get(kernel.decode()):
                kept.feed(frames)
        elif packet.kind is Kind.CALL:
            self._call(link, packet)
        elif packet.kind is Kind.NOTE:
            body = packet.body
            note = self._notes.get(body.pop("op", None))
            if note is None:
                raise ProtocolError("an unknown note")
            note(link, **body)
        else:
            raise ProtocolError(f"a {packet.kind.name} is not for a keeper")

    def _call(self, link: Link, packet: Packet) -> None:
        body = packet.body

        def answer(**said: Any) -> None:
            link.send(pack_json(Kind.ANSWER, packet.number, **said))

        try:
            said = self._calls[body.pop("op")](link, answer=answer, **body)
        except Exception as error:
            log(f"a call failed: {error!r}")
            answer(error=f"{type(error).__name__}: {error}")
        else:
            if said is not None:
                answer(**said)

    def _hello(
        self,
        link: Link,
        answer: object,
        limit: int,
        total: int,
        orphan_timeout: float,
        version: int = OLD_VERSION,
        workspace: str | None = None,
        **_: object,
    ) -> dict[str, Any]:
        said = {"version": min(version, VERSION), "pid": os.getpid()}
        # One of the old version would kill a keeper that refuses it.
        if version != OLD_VERSION and self._has_other_server(link):
            assert self._server is not None
            log(f"the server of process {link.process} is refused: there is another one")
            return {**said, "refused": f"process {self._server.process} is its server"}
        self._take_server(link)
        self._port.leave_to_server()
        self._kernels.set_limits(limit, total)
        self._orphan_timeout = orphan_timeout
        self._workspace = Path(workspace) if workspace else None
        if self._orphaned is not None:
            self._orphaned.cancel()
        log("a server is there")
        return said

    def _take_server(self, link: Link) -> None:
        """Have a server in place of the one before, which has ended unless it is the same."""
        before, self._server = self._server, link
        process = self._server_process
        is_same = process is not None and process.pid == link.process
        if self._returning is not None:
            self._returning.cancel()
        if is_same:
            self._streams.release_all(but=link)
        else:
            self._streams.detach_all(but=link)
        if before is not None and before is not link:
            before.close("there is another server")
        if is_same:
            return
        self._forget_server_process()
        if link.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._server_process = KernelProcess(
                    self._loop, link.process, None, self._server_process_ended
                )

    def _hold_port(
        self, link: Link, answer: object, notes_requests: bool = False, **port: Any
    ) -> dict[str, Any]:
        said = self._port.hold(link, answer, **port)
        if notes_requests:
            _hold_nothing(link)
        return said

    def _kernel(
        self,
        link: Link,
        answer: object,
        kernel: str,
        connection: dict[str, Any],
        is_first: bool,
        is_new: bool,
        is_fed: bool,
        is_busy: bool,
        allowed: list[str],
        process: dict[str, Any] | None = None,
        files: dict[str, str | None] | None = None,
        **_: object,
    ) -> dict[str, Any]:
        if kernel in self._dropping:
            self._drop(kernel)
        kept = self._kernels.keep(kernel, is_new=is_first, is_fed=is_fed)
        self._has_kept = True
        self._stay()
        kept.allow(allowed)
        kept.files = KernelFiles(**(files or {}))
        kept.follow(identity_of(process))
        is_inherited = kept.endpoint.connection is None and not is_new
        kept.connect(Connection.of(connection), is_new=is_new, is_busy=is_busy)
        if is_inherited:
            kept.finish_pending()
        if is_fed and not kept.is_fed:
            self._spliced(kept)
        return {}

    def _spliced(self, kernel: Kernel) -> None:
        if self._server is not None:
            self._server.send(pack_json(Kind.NOTE, op="spliced", kernel=kernel.kernel_id))

    def _tell_soon(self) -> None:
        if self._telling is None:
            self._telling = self._loop.call_later(TELL_INTERVAL, self._tell)

    def _recorded(self, kernel: Kernel) -> None:
        """Tell the server, soon."""
        self._tell_soon()
        self._confirm_soon()
        self._to_tell.add(kernel)

    def _confirm_soon(self) -> None:
        if self._confirming is None:
            self._confirming = self._loop.call_later(CONFIRM_INTERVAL, self._confirm)

    def _confirm(self) -> None:
        """Note what clients have by now; again, as long as something is on its way to one."""
        self._confirming = None
        self._memory.give_back()
        if self._streams.confirm():
            self._confirm_soon()

    def _tell(self) -> None:
        """Tell the server what it need not keep any more; later, if it does not listen."""
        self._telling = None
        if self._server is not None and self._server.is_held_up:
            self._tell_soon()
            return
        kernels = {k.kernel_id: k.last.decode("latin-1") for k in self._to_tell}
        idle = [k.kernel_id for k in self._to_tell if k.is_idle]
        self._to_tell.clear()
        forwarded = self._streams.take_forwarded()
        if self._server is not None:
            self._server.send(
                pack_json(
                    Kind.NOTE,
                    op="recorded",
                    kernels=kernels,
                    idle=idle,
                    forwarded=forwarded,
                    bytes=self._kernels.size,
                )
            )

    def _forget(
        self, link: Link, answer: object, kernel: str, has_transcript: bool
    ) -> dict[str, Any]:
        self._drop_soon(kernel, has_transcript=has_transcript)
        return {}

    def _drop_soon(self, kernel: str, *, has_transcript: bool = True) -> None:
        """Forget a kernel that has ended, when its last words were heard."""
        if kernel not in self._dropping and self._kernels.get(kernel) is not None:
            self._dropping[kernel] = self._loop.call_later(
                LAST_WORDS, lambda: self._drop(kernel, has_transcript=has_transcript)
            )
            self._give_up_idle_port()

    def _drop(self, kernel: str, *, has_transcript: bool = True) -> None:
        if (timer := self._dropping.pop(kernel, None)) is not None:
            timer.cancel()
        kept = self._kernels.get(kernel)
        if kept is not None:
            self._streams.drop(kept)
            self._kernels.drop(kernel, has_transcript=has_transcript)
            self._to_tell.discard(kept)
            self._leave_when_idle()

    def _status(self, link: Link, answer: object) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "port": self._port.address,
            "kernels": {
                kernel.kernel_id: {
                    "first": kernel.ring.first,
                    "next": kernel.ring.next,
                    "bytes": kernel.ring.size,
                    "clients": len(kernel.clients),
                }
                for kernel in self._kernels
            },
        }


def _hold_nothing(link: Link, **_: object) -> None:
    """Close what came with a note, or a call, of a server of the old version.

    It had its clients' connections held (``hold``, ``let_go``, ``take_connection``), and a shared
    memory with what they had requested.
    """
    if (file := link.take_file()) is not None:
        os.close(file)


def main(folder: Path) -> int:
    """Run a keeper, unless there is one already."""
    os.umask(0o077)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        lock = Lock(folder)
    except BlockingIOError:
        return 0
    with contextlib.suppress(ValueError, OSError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Keeper(folder, lock).run()
    return 0
