"""Floods of output: all of it arrives, or it is said what does not; and nobody else has to wait."""

from __future__ import annotations

import json
import re
import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

import patient_kernel
import psutil
import pytest
from clients import kernel_state, new_session, sessions, until_idle
from drills import FULL, drill_count
from homes import TESTS, state_folder, until_ended
from jupyter_client.blocking.client import BlockingKernelClient
from kept import OPTIONS
from lasting import LastingClient, assert_whole, until_printed
from messages import execute_request
from servers import Home, Server, keepers, wait_until
from websocket import ABNF

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

LINES = drill_count(5_000, 60_000)
MEGABYTES = drill_count(30, 1_000)
TIMEOUT = 300 if FULL else 60

PRINTS = "for i in range({}): print(i, flush=True)"
PRINTS_SOON = f"""
import time
print(0, flush=True)
time.sleep(1)
for i in range(1, {LINES}): print(i, flush=True)
"""
PRINTS_MUCH = """
import sys
for _ in range({megabytes}0):
    sys.stdout.write("x" * 99_999 + "\\n")
    sys.stdout.flush()
"""

UNLIMITED_RATE = "--ZMQChannelsWebsocketConnection.limit_rate=False"
MEGABYTE = 1_000_000
LARGE = f"--SessionsApp.journal_limit={100 * MEGABYTE}"
SMALL = f"--SessionsApp.journal_limit={MEGABYTE}"
TOTAL = 20 * MEGABYTE

MOST_RESIDENT = {"keeper": drill_count(200, 700), "server": drill_count(250, 400)}
"""Megabytes. An idle keeper has 25, an idle server 80; what comes while they get no time waits."""

LITTLE = 45 * MEGABYTE
"""Bytes that a keeper has at most when a flood is over."""


@pytest.mark.drill
@pytest.mark.timeout(900)
def test_every_line_of_a_flood_arrives_over_restarts_too(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    patient_kernel.install(home)
    with server_factory(args=[UNLIMITED_RATE, LARGE]) as server:
        kernel_id = new_session(server, kernel={"name": "patient"})["kernel"]["id"]
        with LastingClient(server, kernel_id) as client:
            for end in (None, server.kill):
                request = client.execute(PRINTS.format(LINES))
                if end is not None:
                    until_printed(client, request, 500)
                    end()
                    server.start()
                assert_whole(client, request, LINES, TIMEOUT)


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_what_was_printed_while_a_client_was_away_is_not_limited_in_its_rate(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    """And where there was more than is kept, one message says how many are missing."""
    patient_kernel.install(home)
    with server_factory(args=[LARGE]) as server:
        kernel_id = new_session(server, kernel={"name": "patient"})["kernel"]["id"]
        with LastingClient(server, kernel_id) as client:
            request = client.execute(PRINTS_SOON)
            until_printed(client, request, 1)
            server.kill()
            until_ended(home, request, TIMEOUT)
            server.start()
            assert_whole(client, request, LINES, TIMEOUT)

            server.terminate()
            server.args = [SMALL]
            connections = client.connections
            server.start()
            wait_until(lambda: client.connections > connections, 20, "the client was back")
            request = client.execute(PRINTS_SOON)
            until_printed(client, request, 1)
            server.kill()
            until_ended(home, request, TIMEOUT)
            server.start()
            assert_rest_is_told_of(client, request)


def assert_rest_is_told_of(client: LastingClient, request: str) -> None:
    """Check that a client has got the first and the last lines, and how many are missing."""
    wait_until(lambda: client.is_finished(request), TIMEOUT, "the cell had finished")
    [note] = [m for m in client.of(request, "stream") if m["content"]["name"] == "stderr"]
    first, told, rest = client.text(request).partition(note["content"]["text"])
    [missing] = re.findall(r"\[(\d+) messages were dropped", told)
    numbers = [int(number) for number in rest.split()]
    assert first == "0\n"
    assert numbers == [*range(numbers[0], LINES)]
    assert len(numbers) > 1000  # a megabyte of them
    # ipykernel has now and then two messages for one line.
    assert numbers[0] - 1 <= int(missing) <= numbers[0] * 1.1
    assert len(client.of(request, "execute_reply")) == 1


class Watch:
    """Notes the most that keeper and server have had, in memory and on disk."""

    def __init__(self, home: Home, server: Server) -> None:
        self.resident = {"keeper": 0.0, "server": 0.0}
        self.on_disk = 0
        self._home = home
        self._processes = {"keeper": keepers(home)[0], "server": psutil.Process(server.pid)}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        rings = state_folder(self._home) / "keeper" / "rings"
        while not self._is_over.wait(0.05):
            for name, process in self._processes.items():
                resident = process.memory_info().rss / MEGABYTE
                self.resident[name] = max(self.resident[name], resident)
            with suppress(FileNotFoundError):  # one was dropped meanwhile
                size = sum(file.stat().st_size for file in rings.rglob("*") if file.is_file())
                self.on_disk = max(self.on_disk, size)


@pytest.mark.drill
@pytest.mark.timeout(900)
def test_kernels_that_flood_take_neither_memory_nor_disk_nor_others_time(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    """Of two that flood, one has a client, which is slower than it."""
    with server_factory(args=[UNLIMITED_RATE, f"--SessionsApp.journal_total={TOTAL}"]) as server:
        flooding, alone, calm = (
            new_session(server, f"{number}.ipynb")["kernel"]["id"] for number in range(3)
        )
        code = PRINTS_MUCH.format(megabytes=MEGABYTES)
        seconds: list[float] = []
        with ExitStack() as stack:
            client, other, idle = (
                stack.enter_context(LastingClient(server, kernel))
                for kernel in (flooding, alone, calm)
            )
            assert_whole(idle, idle.execute("print(0)"), 1)
            with Watch(home, server) as watch:
                requests = [client.execute(code), other.execute(code)]
                until_printed(other, requests[1], 1)
                other.drop()
                until = time.monotonic() + TIMEOUT
                while not client.is_finished(requests[0]) and time.monotonic() < until:
                    began = time.monotonic()
                    assert_whole(idle, idle.execute("print(0)"), 1)
                    assert len(sessions(server)) == 3
                    seconds.append(time.monotonic() - began)
                wait_until(lambda: other.is_finished(requests[1]), TIMEOUT, "the other had, too")
            for one, request in zip((client, other), requests, strict=True):
                assert len(one.of(request, "execute_reply")) == 1
        for kernel in (flooding, alone):
            until_idle(server, kernel)
        [keeper] = keepers(home)
        wait_until(lambda: keeper.memory_info().rss < LITTLE, 10, "memory was given back")
    figures = {
        **watch.resident,
        "on disk": watch.on_disk / MEGABYTE,
        "median": statistics.median(seconds),
        "longest": max(seconds),
        "rounds": len(seconds),
    }
    print({name: round(figure, 2) for name, figure in figures.items()})
    assert figures["on disk"] < TOTAL / MEGABYTE + 5
    assert figures["median"] < 1
    assert figures["longest"] < 10  # where it is the machine that has no time
    assert {name: figures[name] < most for name, most in MOST_RESIDENT.items()} == {
        "keeper": True, "server": True,
    }, figures  # fmt: skip


PRINTS_STEADILY = """
import time
for i in range(600):
    print(i, "x" * 16_000, flush=True)
    time.sleep(0.0025)
"""


@pytest.mark.drill
def test_the_rate_of_a_kernel_is_not_limited_because_its_client_reads_late(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    connection = "--ZMQChannelsWebsocketConnection"
    args = [
        f"{connection}.iopub_msg_rate_limit=600",  # more than it prints
        f"{connection}.iopub_data_rate_limit=0",
        f"{connection}.rate_limit_window=0.5",
        LARGE,
    ]
    with server_factory(args=args) as server:
        kernel_id = new_session(server)["kernel"]["id"]
        request = execute_request(PRINTS_STEADILY, "late")
        with closing(server.connect(kernel_id, "late")) as channels:
            assert channels.sock is not None
            channels.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
            channels.send(json.dumps(request))
            until_ended(home, request["header"]["msg_id"])
            channels.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            received = [channels.recv()]
            while '"idle"' not in received[-1] or request["header"]["msg_id"] not in received[-1]:
                received.append(channels.recv())
    streams = [m for m in map(json.loads, received) if m["msg_type"] == "stream"]
    text = "".join(stream["content"]["text"] for stream in streams)
    assert text.split()[::2] == [str(i) for i in range(600)]


def test_a_kernel_is_not_taken_for_busy_because_the_server_has_not_heard_its_end(
    server_factory: Callable[..., Server],
) -> None:
    deaf = ["--ServerApp.jpserver_extensions={'deaf': True}"]
    with server_factory(args=deaf, env={"PYTHONPATH": str(TESTS)}) as server:
        kernel_id = new_session(server)["kernel"]["id"]
        server.execute(kernel_id, "1")
        until_idle(server, kernel_id)


def test_a_cell_waits_until_the_server_hears_its_kernel_and_knows_then_that_it_works(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    hears, gate = home.path / "hears", home.path / "gate"
    args = ["--ServerApp.jpserver_extensions={'deaf': True}"]
    env = {"PYTHONPATH": str(TESTS), "HEARS": str(hears)}
    with server_factory(args=args, env=env) as server:
        kernel_id = new_session(server)["kernel"]["id"]
        with LastingClient(server, kernel_id) as client:
            request = client.execute(
                f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
            )
            with pytest.raises(AssertionError):
                wait_until(lambda: client.of(request, "execute_input"), 1.5, "it ran")
            hears.touch()
            wait_until(lambda: client.of(request, "execute_input"), 10, "it ran")
            wait_until(lambda: kernel_state(server, kernel_id) == "busy", 5, "that was known")
            gate.touch()
            wait_until(lambda: client.is_finished(request), 10, "it had finished")


def test_a_kernel_that_has_just_begun_to_work_is_not_culled(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    """The server hears that it works, though its loop had no time for that."""
    sign = home.path / "sign"
    code = f"import time; time.sleep(0.3); open({str(sign)!r}, 'x').close(); input()"
    with ExitStack() as stack:
        server = stack.enter_context(server_factory(args=OPTIONS, env={"PYTHONPATH": str(TESTS)}))
        kernel_id = new_session(server)["kernel"]["id"]
        server.execute(kernel_id, "x = 1")
        direct = BlockingKernelClient()
        direct.load_connection_file(str(home.runtime_dir / f"kernel-{kernel_id}.json"))
        direct.start_channels()
        stack.callback(direct.stop_channels)
        direct.wait_for_ready(20)
        until_idle(server, kernel_id)
        culling = stack.enter_context(ThreadPoolExecutor(1)).submit(
            server.post, f"/test/cull/{kernel_id}?sign={sign}"
        )
        wait_until(sign.with_suffix(".begun").exists, 10, "the server had no time")
        direct.execute(code, allow_stdin=True)
        assert culling.result(30).status_code == 204
        assert kernel_state(server, kernel_id) == "busy"
        direct.get_stdin_msg(timeout=20)
        direct.input("")
        until_idle(server, kernel_id)


def test_a_client_need_not_wait_for_a_kernel_that_is_not_heard(
    server_factory: Callable[..., Server],
) -> None:
    """It is the server's own state of the kernel that its messages wait for, not the client."""
    args = ["--ServerApp.jpserver_extensions={'deaf': True}"]
    with server_factory(args=args, env={"PYTHONPATH": str(TESTS), "HEARS": "/nowhere"}) as server:
        kernel_id = new_session(server)["kernel"]["id"]
        with closing(server.connect(kernel_id)) as channels:
            channels.ping("here?")
            channels.settimeout(5)
            while channels.recv_data(control_frame=True)[0] != ABNF.OPCODE_PONG:
                pass
