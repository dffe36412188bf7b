"""A real kernel that starts in a tenth of the time: the wire protocol and `exec`, nothing else.

As a script it is the process of kernelspec ``minimal``; imported it installs that kernelspec. Only
the state machine and the fuzzing of ``/api/sessions`` use it: they start thousands of kernels.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import json
import os
import signal
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import zmq

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Home

OPTIONS: Final[dict[str, Any]] = {
    "args": [
        "--ServerApp.kernel_spec_manager_class=minimal_server.KernelSpecs",
        "--ServerApp.jpserver_extensions={'minimal_server': True}",
        "--MultiKernelManager.default_kernel_name=minimal",
    ],
    "env": {"PYTHONPATH": str(Path(__file__).parent)},
}
"""What limits a server to this kernel, and loads the route of :mod:`minimal_server`."""

LIFE: Final = 600
"""Seconds after which a process ends by itself, whatever became of its test."""

BROKEN: Final = ".broken"
"""What follows the name of a connection file whose kernel is not to start."""

UP: Final = ".up"
"""What follows the name of a connection file whose kernel answers; the file has its pid."""

DELIMITER: Final = b"<IDS|MSG>"


def install(home: Home) -> None:
    """Write kernelspec ``minimal`` into a home."""
    folder = home.data_dir / "kernels" / "minimal"
    folder.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, __file__, "{connection_file}"],
        "display_name": "Minimal",
        "language": "python",
    }
    (folder / "kernel.json").write_text(json.dumps(spec))


@contextlib.contextmanager
def broken(home: Home, kernel_id: str) -> Iterator[None]:
    """Have a kernel end at once whenever it is started meanwhile."""
    sign = _sign(home, kernel_id, BROKEN)
    sign.touch()
    try:
        yield
    finally:
        sign.unlink()


def is_up(home: Home, kernel_id: str, pid: int) -> bool:
    """Tell whether a kernel's process has got as far as to answer."""
    sign = _sign(home, kernel_id, UP)
    return sign.exists() and sign.read_text() == str(pid)


def _sign(home: Home, kernel_id: str, suffix: str) -> Path:
    return home.runtime_dir / f"kernel-{kernel_id}.json{suffix}"


class Kernel:
    """The sockets of a connection file, and the answers to what comes in."""

    def __init__(self, connection: dict[str, Any]) -> None:
        self._key = connection["key"].encode()
        self._session = uuid.uuid4().hex
        self._namespace: dict[str, Any] = {}
        self._count = 0
        self._running = True
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        context = zmq.Context()
        joint = ":" if connection["transport"] == "tcp" else "-"
        for name, kind in (
            ("shell", zmq.ROUTER),
            ("control", zmq.ROUTER),
            ("stdin", zmq.ROUTER),
            ("hb", zmq.ROUTER),
            ("iopub", zmq.PUB),
        ):
            self._sockets[name] = socket = context.socket(kind)
            socket.linger = 500
            port = connection[f"{name}_port"]
            socket.bind(f"{connection['transport']}://{connection['ip']}{joint}{port}")

    def serve(self) -> None:
        """Answer until it is asked to shut down."""
        poller = zmq.Poller()
        for name in ("control", "shell", "hb"):
            poller.register(self._sockets[name], zmq.POLLIN)
        while self._running:
            for socket, _ in poller.poll():
                frames = socket.recv_multipart()
                if socket is self._sockets["hb"]:
                    socket.send_multipart(frames)
                else:
                    self._receive(socket, frames)

    def _receive(self, socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
        at = frames.index(DELIMITER)
        identities, signature, parts = frames[:at], frames[at + 1], frames[at + 2 : at + 6]
        if not hmac.compare_digest(signature, self._sign(parts)):
            return
        parent = json.loads(parts[0])
        answer = getattr(self, f"_{parent['msg_type']}", None)
        self._publish("status", {"execution_state": "busy"}, parent)
        if answer is not None:
            content = answer(json.loads(parts[3]), parent)
            kind = parent["msg_type"].replace("request", "reply")
            self._send(socket, identities, kind, content, parent)
        self._publish("status", {"execution_state": "idle"}, parent)

    def _kernel_info_request(self, _: dict[str, Any], __: dict[str, Any]) -> dict[str, Any]:
        version = ".".join(map(str, sys.version_info[:3]))
        language = {"name": "python", "version": version, "file_extension": ".py"}
        return {
            "status": "ok",
            "protocol_version": "5.3",
            "implementation": "minimal",
            "implementation_version": "1",
            "language_info": {**language, "mimetype": "text/x-python"},
            "banner": "",
            "help_links": [],
        }

    def _execute_request(self, asked: dict[str, Any], parent: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        result: dict[str, Any] = {"status": "ok", "execution_count": self._count}
        stdout = io.StringIO()
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with contextlib.redirect_stdout(stdout):
                exec(asked["code"], self._namespace)
            result |= {"user_expressions": {}, "payload": []}
        except BaseException as error:
            raised = {"ename": type(error).__name__, "evalue": str(error), "traceback": []}
            self._publish("error", raised, parent)
            result |= {"status": "error", **raised}
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if stdout.getvalue():
            self._publish("stream", {"name": "stdout", "text": stdout.getvalue()}, parent)
        return result

    def _interrupt_request(self, _: dict[str, Any], __: dict[str, Any]) -> dict[str, Any]:
        return {"status": "ok"}  # it has nothing to do: one thread answers and executes

    def _shutdown_request(self, asked: dict[str, Any], _: dict[str, Any]) -> dict[str, Any]:
        self._running = False
        return {"status": "ok", "restart": asked["restart"]}

    def _publish(self, kind: str, content: dict[str, Any], parent: dict[str, Any]) -> None:
        self._send(self._sockets["iopub"], [kind.encode()], kind, content, parent)

    def _send(
        self,
        socket: zmq.Socket[bytes],
        prefix: list[bytes],
        kind: str,
        content: dict[str, Any],
        parent: dict[str, Any],
    ) -> None:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": kind,
            "session": self._session,
            "username": "minimal",
            "date": datetime.now(timezone.utc).isoformat(),
            "version": "5.3",
        }
        parts = [json.dumps(part).encode() for part in (header, parent, {}, content)]
        socket.send_multipart([*prefix, DELIMITER, self._sign(parts), *parts])

    def _sign(self, parts: list[bytes]) -> bytes:
        if not self._key:
            return b""
        return hmac.new(self._key, b"".join(parts), hashlib.sha256).hexdigest().encode()


if __name__ == "__main__":
    if os.path.exists(sys.argv[1] + BROKEN):
        sys.exit(1)
    signal.alarm(LIFE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kernel = Kernel(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[1] + UP).write_text(str(os.getpid()))
    kernel.serve()
