"""Where a server listens: held by its keeper for the next one, or closed, or a unix socket."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
from clients import new_session
from homes import TESTS
from interpreters import run_python
from kept import finishes, is_open
from lasting import PRINTS, LastingClient, until_printed
from servers import Home, Server, kernel_processes, wait_until

from jupyter_sessions_ext.keeper.protocol import Kind, Unpacker, pack_json
from jupyter_sessions_ext.keeper.takeover import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import websocket


def test_the_port_is_held_after_signals_and_closed_by_jupyter_server_stop(shared: Server) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    shared.execute(kernel_id, "x = 1")
    terminal, shared.stdin = pty.openpty()
    try:
        shared.restart()
        os.kill(shared.pid, signal.SIGINT)
        wait_until(lambda: "Shut down this Jupyter server" in shared.log, 10, "it had asked")
        os.kill(shared.pid, signal.SIGINT)
        wait_until(lambda: not shared.running, 15, "the server had ended")
        assert is_open(shared.port)
        assert f"server, and port {shared.port} stays open for it. To end all" in shared.log
    finally:
        os.close(terminal)
        os.close(shared.stdin)
        shared.stdin = subprocess.DEVNULL
    shared.start()
    shared.execute(kernel_id, "pass")  # by then the keeper has the port
    os.kill(shared.pid, signal.SIGINT)  # without a terminal
    wait_until(lambda: not shared.running, 15, "the server had ended")
    assert is_open(shared.port)
    shared.start()
    shared.execute(kernel_id, "x += 1")
    shared.terminate()
    assert is_open(shared.port)
    shared.start()
    stop = run_python(
        "-m", "jupyter_server", "stop", str(shared.port), env=shared.home.environment()
    )
    assert stop.returncode == 0, stop.stderr
    assert not shared.running
    wait_until(lambda: not is_open(shared.port), 2, "the port was closed")
    assert "stay running for the next server. To end all" in shared.log
    shared.start()
    assert shared.execute(kernel_id, "print(x)") == "2\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_port_is_closed_with_kernels_that_are_not_kept(
    home: Home, server_factory: Callable[..., Server], number: signal.Signals
) -> None:
    with server_factory(args=["--SessionsApp.kernels_on_stop=shutdown"]) as server:
        server.execute(new_session(server)["kernel"]["id"], "x = 1")  # the keeper has the port
        os.kill(server.pid, number)
        wait_until(lambda: not server.running, 20, "the server had ended")
        wait_until(lambda: not is_open(server.port), 2, "the port was closed")
        wait_until(lambda: not kernel_processes(home), 10, "the kernel had ended")


def test_a_server_that_runs_its_loop_before_it_listens_takes_the_port_over(
    server_factory: Callable[..., Server],
) -> None:
    arguments = ["--ServerApp.jpserver_extensions={'looping': True}"]
    with server_factory(args=arguments, env={"PYTHONPATH": str(TESTS)}) as server:
        server.execute(new_session(server)["kernel"]["id"], "pass")  # the keeper has the port
        server.kill()
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/api")
        server.start()
        assert connection.getresponse().status == 200
        connection.close()


IMPATIENT_KEEPER = """
import sys
from pathlib import Path
from jupyter_sessions_ext.keeper import port, server
port.PATIENCE, port._READ_TIMEOUT = 0, 1
server.main(Path(sys.argv[1]))
"""

PORTS = {f"{name}_port": 9 for name in ("iopub", "shell", "stdin", "control")}
KERNEL = {
    "kernel": "one that is not heard",
    "connection": {"transport": "tcp", "ip": "127.0.0.1", **PORTS},
    "is_first": True,
    "is_new": True,
    "is_fed": False,
    "is_busy": True,
    "allowed": [],
}
"""The port is held for it."""


@contextmanager
def holding_keeper(folder: Path, listener: socket.socket) -> Iterator[psutil.Process]:
    """Run a keeper that holds a port, whose server has gone."""
    host, port = listener.getsockname()
    command = [sys.executable, "-c", IMPATIENT_KEEPER, str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until((folder / "keeper.sock").exists, 10, "the keeper was there")
            with connect(folder, 10) as link:
                hello = {"limit": 1 << 20, "total": 1 << 20, "orphan_timeout": 0}
                hold = pack_json(Kind.CALL, 2, op="hold_port", host=host, port=port, count=1)
                link.sendall(pack_json(Kind.CALL, 1, op="hello", **hello))
                link.sendall(pack_json(Kind.CALL, 3, op="kernel", **KERNEL))
                socket.send_fds(link, [hold], [listener.fileno()])
                unpacker, answers = Unpacker(), list[int]()
                while not {2, 3} <= {*answers}:
                    answers += [packet.number for packet in unpacker.feed(link.recv(1 << 16))]
            yield psutil.Process(process.pid)
        finally:
            process.kill()


def test_more_requests_than_a_keeper_answers_at_once_wait_and_cost_nothing(tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=500))
        keeper = stack.enter_context(holding_keeper(tmp_path / "keeper", listener))
        clients = []
        for number in range(300):
            client = socket.create_connection(listener.getsockname(), 20)
            clients.append(stack.enter_context(client))
            if number >= 200:  # the others say nothing: each has a second for that
                client.sendall(b"GET /api HTTP/1.1\r\nHost: x\r\n\r\n")
        listener.close()
        before = keeper.cpu_times()
        answers = [client.recv(1 << 16) for client in clients]
        used = keeper.cpu_times()
    assert answers[:200] == [b""] * 200
    for answer in answers[200:]:
        head = answer.partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 3" in head
    seconds = used.user + used.system - before.user - before.system
    assert seconds < 0.2


# -------------------------------------------------------------------------- unix sockets


class SocketServer(Server):
    """A server that listens on a unix socket."""

    def __init__(self, home: Home, path: Path) -> None:
        # The default port is taken for none.
        super().__init__(home, port=8888, args=[f"--ServerApp.sock={path}"])
        self._path = str(path)

    @property
    def _http(self) -> httpx.Client:
        if self._client is None:
            self._client = httpx.Client(transport=httpx.HTTPTransport(uds=self._path))
        return self._client

    def _answers(self) -> bool:
        # httpx does not close a unix socket on which nobody answers.
        with suppress(OSError), socket.socket(socket.AF_UNIX) as attempt:
            attempt.connect(self._path)
            return super()._answers()
        return False

    def connect(self, *about: Any, **options: Any) -> websocket.WebSocket:
        channels = socket.socket(socket.AF_UNIX)
        try:
            channels.settimeout(30)
            channels.connect(self._path)
            return super().connect(*about, **options, socket=channels)
        except BaseException:
            channels.close()
            raise


def test_over_a_unix_socket_cells_go_on_over_a_restart_too(home: Home, tmp_path: Path) -> None:
    with SocketServer(home, tmp_path / "s") as server:
        kernel_id = new_session(server)["kernel"]["id"]
        with LastingClient(server, kernel_id) as client:
            request = client.execute(PRINTS.format(count=150))
            until_printed(client, request, 10)
            server.restart()
            wait_until(lambda: client.is_finished(request), 30, "the cell had finished")
            printed = client.of(request, "stream")
            # What was being written when the server was killed may come twice: docs/keeper.md.
            once = {message["header"]["msg_id"]: message for message in printed}
            assert len(printed) - len(once) <= 1
            numbers = "".join(message["content"]["text"] for message in once.values()).split()
            assert numbers == [str(number) for number in range(150)]
            finishes(client)


def test_no_program_that_a_server_starts_has_what_came_from_the_keeper(shared: Server) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    with LastingClient(shared, kernel_id) as client:
        for _ in range(2):
            finishes(client)
            assert shared.post("/test/child").json() == []
            shared.restart()
