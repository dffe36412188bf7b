"""What a kernel sends is lost over no end of the server, and of no keeper."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import httpx
import patient_kernel
import psutil
import pytest
from clients import new_session, sessions
from commands import run
from drills import drill_count
from homes import TESTS, history, state_folder, until_ended
from kept import is_open, suspended
from lasting import PRINTS, LastingClient, assert_whole, until_printed
from servers import Home, Server, keepers, kernel_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

RICH = """
import time
from comm import create_comm
from IPython.display import display
comm = create_comm(target_name="widget")
for i in range({count}):
    print(i, flush=True)
    comm.send({{"n": i}}, buffers=[bytes(100)])
    display({{"image/png": f"{{i}}" + "A" * 5000}}, raw=True)
    time.sleep(0.02)
"""

UNLIMITED = "--ZMQChannelsWebsocketConnection.limit_rate=False"
IMPATIENT = ["--ServerApp.jpserver_extensions={'impatient': True}"]


def until_connected(client: LastingClient, times: int) -> None:
    wait_until(lambda: client.connections >= times, 30, "it was back")


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_cells_go_on_over_restarts_and_end_meanwhile_and_no_line_is_lost(
    home: Home, server: Server
) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    dice = random.Random(1)
    with LastingClient(server, kernel_id) as client, LastingClient(server, kernel_id) as other:
        for number in range(drill_count(4, 200)):
            ends_meanwhile = number % 2 == 1
            count = 60 if ends_meanwhile else 200
            request = client.execute(PRINTS.format(count=count))
            until_printed(client, request, dice.randint(1, 30))
            server.kill() if number % 4 < 2 else server.terminate()
            if ends_meanwhile:
                until_ended(home, request)
            server.start()
            assert_whole(client, request, count)
            wait_until(partial(other.was_idle_after, request), 10, "the other has it")
            assert other.text(request) == client.text(request)
            assert other.of(request, "execute_reply") == []


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_images_and_widgets_of_many_kernels_go_on_over_restarts(home: Home, server: Server) -> None:
    count = 80
    kernels = [
        new_session(server, f"{number}.ipynb")["kernel"]["id"]
        for number in range(drill_count(3, 10))
    ]
    with ExitStack() as stack:
        clients = [stack.enter_context(LastingClient(server, kernel)) for kernel in kernels]
        for number in range(drill_count(2, 200)):
            asked = [(client, client.execute(RICH.format(count=count))) for client in clients]
            for client, request in asked:
                until_printed(client, request, 5)
            server.kill() if number % 4 < 2 else server.terminate()
            if number % 2:
                for _, request in asked:
                    until_ended(home, request)
            server.start()
            for client, request in asked:
                assert_whole(client, request, count)
                comms = [m["content"]["data"].get("n") for m in client.of(request, "comm_msg")]
                assert comms == [*range(count)]
                images = [
                    m["content"]["data"]["image/png"].rstrip("A")
                    for m in client.of(request, "display_data")
                ]
                assert images == [str(i) for i in range(count)]


@pytest.mark.drill
@pytest.mark.timeout(900)
def test_a_client_that_is_slow_to_read_gets_all_once(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    patient_kernel.install(home)
    server = server_factory(args=[UNLIMITED]).start()
    kernel_id = new_session(server, kernel={"name": "patient"})["kernel"]["id"]
    count, dice = 4000, random.Random(3)
    with LastingClient(server, kernel_id, delay=0.001) as client:
        for number in range(drill_count(2, 20)):
            request = client.execute(f"for i in range({count}): print(i, flush=True)")
            until_printed(client, request, dice.randint(1, 1000))
            server.terminate() if number % 2 else server.kill()
            assert len(client.of(request, "stream")) < count, "it is not slow"
            server.start()
            until_connected(client, number + 2)
            assert_whole(client, request, count)


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_a_killed_keeper_is_followed_by_another_and_nobody_notices(
    home: Home, server: Server
) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    dice = random.Random(2)
    with LastingClient(server, kernel_id) as client:
        for number in range(drill_count(3, 50)):
            if number == 1:  # from now on it is a server that has adopted the kernel
                server.restart()
                wait_until(lambda: client.connections == 2, 20, "the client was back")
            request = client.execute(PRINTS.format(count=80))
            until_printed(client, request, dice.randint(1, 60))
            [keeper] = keepers(home)
            keeper.kill()
            assert_whole(client, request, 80)
            assert client.connections == min(number, 1) + 1


def test_a_question_that_is_asked_meanwhile_is_there_when_the_server_is_and_can_be_answered(
    home: Home, server: Server
) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    with LastingClient(server, kernel_id) as client:
        first = client.execute("a = input('first')", allow_stdin=True)
        wait_until(lambda: client.of(first, "input_request"), 10, "it was asked")
        server.restart()
        wait_until(lambda: client.connections == 2, 30, "the client was back")
        client.answer(first, "1")
        wait_until(lambda: client.is_finished(first), 10, "it had finished")
        assert len(client.of(first, "input_request")) == 1
        code = "time.sleep(1); b = input('second'); print(a + b, flush=True); time.sleep(1)"
        second = client.execute(f"import time; {code}; print('end')", allow_stdin=True)
        wait_until(lambda: client.of(second, "execute_input"), 10, "it had begun")
        server.restart()
        wait_until(lambda: client.of(second, "input_request"), 10, "it was asked")
        client.answer(second, "2")
        wait_until(lambda: client.text(second), 10, "the answer was there")
        server.kill()
        until_ended(home, second)
        server.start()
        wait_until(lambda: client.is_finished(second), 10, "it had finished")
        assert client.text(second) == "12\nend\n"


def test_kernels_end_that_no_server_comes_back_for(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    server = server_factory(args=["--SessionsApp.orphan_timeout=0.5"]).start()
    session = new_session(server)
    server.execute(session["kernel"]["id"], "x = 1")
    server.kill()
    wait_until(lambda: not kernel_processes(home), 20, "the kernel had ended")
    wait_until(lambda: not keepers(home), 20, "the keeper had ended")
    assert not is_open(server.port)
    [item] = run(home, "list", "--json").json
    assert (item["state"], "no server came back for it in" in item["reason"]) == ("dormant", True)
    server.start()
    assert sessions(server) == []
    assert history(home, session["id"])[-1][0] == "dormant"
    assert "no server came back for it in" in history(home, session["id"])[-1][1]
    server.close()


def test_a_server_that_stops_leaves_no_kernel_without_a_keeper(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    server = server_factory(args=["--SessionsApp.orphan_timeout=0.5"]).start()
    server.execute(new_session(server)["kernel"]["id"], "x = 1")
    with suspended(psutil.Process(server.pid)) as process:
        [keeper] = keepers(home)
        keeper.kill()
        wait_until(lambda: keeper.status() == psutil.STATUS_ZOMBIE, 10, "the keeper had ended")
        process.terminate()
    wait_until(lambda: not server.running, 20, "the server had ended")
    wait_until(lambda: not kernel_processes(home), 20, "the kernel had ended")
    wait_until(lambda: not keepers(home), 20, "the keeper had ended")


def test_the_keeper_ends_with_its_last_kernel(home: Home, server: Server) -> None:
    session = new_session(server)
    server.execute(session["kernel"]["id"], "x = 1")
    assert len(keepers(home)) == 1
    server.delete(f"/api/sessions/{session['id']}")
    children = psutil.Process(server.pid).children
    wait_until(lambda: children() == [], 20, "the keeper had ended, and was not left a zombie")
    again = new_session(server)
    assert server.execute(again["kernel"]["id"], "print(1)") == "1\n"
    server.kill()
    [kernel] = kernel_processes(home)
    assert len(keepers(home)) == 1
    kernel.kill()
    wait_until(lambda: not keepers(home), 20, "the keeper had ended")
    server.start()


def test_a_keeper_whose_socket_is_deleted_is_found_to_be_gone_and_replaced(
    home: Home, server: Server
) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    with LastingClient(server, kernel_id) as client:
        request = client.execute(PRINTS.format(count=300))
        until_printed(client, request, 10)
        (state_folder(home) / "keeper" / "keeper.sock").unlink()
        server.restart()
        assert_whole(client, request, 300)
        assert len(keepers(home)) == 1


def test_a_keeper_whose_lock_is_deleted_makes_it_anew_and_goes_on(
    home: Home, server: Server
) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    with LastingClient(server, kernel_id) as client:
        request = client.execute(PRINTS.format(count=300))
        until_printed(client, request, 10)
        [keeper] = keepers(home)
        lock = state_folder(home) / "keeper" / "keeper.lock"
        lock.unlink()
        server.restart()
        assert_whole(client, request, 300)
        assert lock.exists()
        assert [one.pid for one in keepers(home)] == [keeper.pid]


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_a_kill_fails_the_request_that_it_meets_and_no_other(home: Home, server: Server) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    server.execute(kernel_id, "x = 1")
    polled: list[int | str] = []
    done = threading.Event()

    def ask() -> int | str:
        try:
            return server.get("/api/sessions").status_code
        except httpx.HTTPError as error:
            return repr(error)

    def poll() -> None:
        while not done.wait(0.05):
            polled.append(ask())

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        kills = drill_count(3, 40)
        for _ in range(kills):
            server.kill()
            server.start()
            assert [s["kernel"]["id"] for s in sessions(server)] == [kernel_id]
    finally:
        done.set()
        thread.join()
    failed = [answer for answer in polled if answer != 200]
    assert len(failed) <= kills
    assert not [answer for answer in failed if isinstance(answer, int)]


def test_a_keeper_that_hangs_is_replaced_and_what_was_asked_of_it_is_done(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    env = {"PYTHONPATH": str(TESTS)}
    with server_factory(args=IMPATIENT, env=env) as server:
        kernel_id = new_session(server)["kernel"]["id"]
        with LastingClient(server, kernel_id) as client:
            request = client.execute(PRINTS.format(count=400))
            until_printed(client, request, 10)
            [keeper] = keepers(home)
            keeper.suspend()
            assert_whole(client, request, 400)
            assert client.connections == 1
            assert [k.pid for k in keepers(home)] != [keeper.pid]


def test_a_second_keeper_leaves_the_first_alone(home: Home, server: Server) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    with LastingClient(server, kernel_id) as client:
        request = client.execute(PRINTS.format(count=100))
        until_printed(client, request, 10)
        folder = state_folder(home) / "keeper"
        command = [sys.executable, "-m", "jupyter_sessions_ext.keeper", str(folder)]
        assert subprocess.run(command, check=False, timeout=20).returncode == 0
        assert_whole(client, request, 100)
        assert (len(keepers(home)), client.connections) == (1, 1)


def test_a_keeper_of_another_version_is_replaced_and_what_it_kept_stays(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    env = {"PYTHONPATH": str(TESTS), "OLD_KEEPER": "1"}
    with server_factory(args=IMPATIENT, env=env) as server:
        kernel_id = new_session(server)["kernel"]["id"]
        with LastingClient(server, kernel_id) as client:
            request = client.execute("import time; print(1, flush=True); time.sleep(2); print(2)")
            until_printed(client, request, 1)
            old = {process.pid for process in home.processes()} - {server.pid}
            server.kill()
            until_ended(home, request)
            server.env, server.args = {}, []
            server.start()
            wait_until(lambda: client.is_finished(request), 30, "the cell had finished")
            assert client.text(request) == "1\n2\n"
            [new] = keepers(home)
            assert new.pid not in old
