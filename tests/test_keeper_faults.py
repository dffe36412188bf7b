"""Keepers, servers, kernels and disks end, hang or are full: nothing is lost that need not be."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import minimal_kernel
import psutil
import pytest
from clients import new_session, sessions, until_idle
from disks import fill, small_disk
from homes import kernel_process
from kept import ask_keeper, finishes, is_open, keeper_folder, keeper_log, no_keeper, suspended
from lasting import PRINTS, LastingClient, assert_whole, until_printed
from messages import execute_request
from servers import Home, Server, end_keepers, keepers, kernel_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


# -------------------------------------------------------------------------- no keeper


def test_without_a_keeper_cells_run_and_kernels_restart_over_the_connection_that_there_is(
    shared: Server,
) -> None:
    home = shared.home
    session = new_session(shared)
    kernel_id = session["kernel"]["id"]
    before = f"print(0)  # {uuid4()}"
    with LastingClient(shared, kernel_id) as client:
        finishes(client, before)
        with no_keeper(home):
            for _ in range(3):
                finishes(client)
            with LastingClient(shared, kernel_id) as other:
                for _ in range(3):
                    finishes(other)
                assert other.connections == 1
            assert shared.post(f"/api/kernels/{kernel_id}/restart").status_code == 200
            # As in stock, what it prints is lost until its channels are connected again.
            wait_until(lambda: is_heard(client), 20, "it was heard")
            assert client.connections == 1
            assert 1 <= shared.log.count("There is no keeper, so that output may be lost") <= 4
        wait_until(lambda: keeper_answers(home), 20, "there was a keeper again")
        with LastingClient(shared, kernel_id) as again:
            request = again.execute(PRINTS.format(count=150))
            until_printed(again, request, 20)
            assert len(keepers(home)) == 1
            shared.restart()
            assert_whole(again, request, 150)
        wait_until(lambda: client.connections == 2, 20, "the first client was back")
        finishes(client)
    assert before in transcript(shared, session["id"])


HIDES = """
import signal
from contextlib import suppress
from __main__ import kernel
iopub = kernel._sockets["iopub"]
url = iopub.LAST_ENDPOINT
def hide(*_):
    with suppress(Exception):  # it is hidden
        iopub.unbind(url)
signal.signal(signal.SIGUSR1, hide)
signal.signal(signal.SIGUSR2, lambda *_: iopub.bind(url))
"""
"""A minimal kernel is heard by nobody after one signal, and after the other by all again."""


def test_what_a_client_sends_while_it_goes_on_without_a_keeper_waits_until_the_kernel_is_heard(
    shared: Server,
) -> None:
    home = shared.home
    minimal_kernel.install(home)
    kernel_id = shared.post("/api/kernels", {"name": "minimal"}).json()["id"]
    info = json.loads((home.runtime_dir / f"kernel-{kernel_id}.json").read_text())
    with LastingClient(shared, kernel_id) as client:
        finishes(client)
        shared.execute(kernel_id, HIDES)
        kernel = kernel_process(home, kernel_id)

        def is_hidden() -> bool:
            kernel.send_signal(signal.SIGUSR1)  # Python misses one as it begins to wait
            return not is_open(info["iopub_port"])

        wait_until(is_hidden, 10, "it is not heard")
        with no_keeper(home):
            said = "There is no keeper, so that output may be lost"
            before = shared.log.count(said)
            wait_until(lambda: shared.log.count(said) > before, 20, "the client went on")
            request = client.execute("print(0)")
            for _ in range(3):  # what came before is handled then
                shared.get("/api")
            kernel.send_signal(signal.SIGUSR2)
            assert_whole(client, request, 1)
    wait_until(lambda: keeper_answers(home), 20, "there was a keeper again")
    assert shared.delete(f"/api/kernels/{kernel_id}").status_code == 204


def keeper_answers(home: Home) -> bool:
    """Tell whether there is a keeper that has kernels."""
    with suppress(OSError):
        return bool(ask_keeper(home, "status")["kernels"])
    return False


def is_heard(client: LastingClient) -> bool:
    request = client.execute("print(0)")
    with suppress(AssertionError):  # its end may be lost, too
        wait_until(lambda: client.is_finished(request), 2, "the cell had ended")
    return client.text(request) == "0\n"


def transcript(server: Server, session_id: str) -> list[str]:
    """Return what a session's kernels have run."""
    reply = server.get(f"/sessions/api/v1/sessions/{session_id}/transcript")
    assert reply.status_code == 200, reply.text
    return [cell["source"] for cell in reply.json()["cells"] if cell["cell_type"] == "code"]


# ------------------------------------------------------------------------ a keeper or a server ends


def test_a_keeper_killed_after_the_servers_restart_loses_no_line(shared: Server) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    with LastingClient(shared, kernel_id) as client:
        request = client.execute(PRINTS.format(count=250))
        until_printed(client, request, 10)
        shared.restart()
        wait_until(lambda: client.connections == 2, 20, "the client was back")
        until_printed(client, request, len(client.of(request, "stream")) + 10)
        [keeper] = keepers(shared.home)
        keeper.kill()
        assert_whole(client, request, 250)
        assert client.connections == 2


def test_the_keeper_ends_though_no_server_has_seen_its_last_kernel_end(shared: Server) -> None:
    home = shared.home
    for session in sessions(shared):
        shared.delete(f"/api/sessions/{session['id']}")
    session = new_session(shared)
    assert shared.execute(session["kernel"]["id"], "print(1)") == "1\n"
    [kernel] = kernel_processes(home)
    with suspended(psutil.Process(shared.pid)):
        kernel.kill()
        wait_until(lambda: not kernel_processes(home), 10, "the kernel had ended")
        ask_keeper(home, "ping")  # it has seen that
        shared.kill()
    wait_until(lambda: not home.processes(), 10, "the keeper had ended")
    shared.start()
    assert sessions(shared) == []


def test_a_request_that_the_server_took_while_the_keeper_was_held_up_is_done_once(
    shared: Server,
) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    shared.execute(kernel_id, "count = 0")
    with LastingClient(shared, kernel_id) as client:
        finishes(client)
        [keeper] = keepers(shared.home)
        code = "count += 1; print(count) #" + 300_000 * "x"  # more than a socket takes
        with suspended(keeper):
            taken = [client.execute(code) for _ in range(2)]
            for _ in range(3):  # what came before is handled then
                shared.get("/api")
            psutil.Process(shared.pid).suspend()
            taken.append(client.execute("count += 1; print(count)"))
            shared.kill()
        shared.start()
        wait_until(lambda: all(map(client.is_finished, taken)), 20, "they had finished")
        for number, request in enumerate(taken, 1):
            assert client.text(request) == f"{number}\n"
        assert shared.execute(kernel_id, "print(count)") == "3\n"


WAITS = """
import time
from pathlib import Path
runs = []
while not Path({sign!r}).exists():
    time.sleep(0.01)
"""


def test_all_that_waits_behind_a_cell_is_done_once_though_the_keeper_is_killed(
    shared: Server, tmp_path: Path
) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    sign = tmp_path / "go on"
    with LastingClient(shared, kernel_id) as client:
        first = client.execute(WAITS.format(sign=str(sign)))
        wait_until(lambda: client.of(first, "execute_input"), 20, "it had begun")
        waiting = [client.execute(f"runs.append({number})") for number in range(150)]
        wait_until(lambda: len(pending(shared)) == 151, 10, "they were forwarded")
        keepers(shared.home)[0].kill()
        sign.touch()
        wait_until(lambda: all(map(client.is_finished, waiting)), 30, "they had finished")
        assert {len(client.of(one, "execute_reply")) for one in waiting} == {1}
        assert shared.execute(kernel_id, "print(runs == [*range(150)])") == "True\n"


def memos(server: Server) -> list[dict[str, Any]]:
    """Return what the keeper has noted of clients."""
    files = (keeper_folder(server.home) / "clients").rglob("*.client")
    return [json.loads(file.read_text()) for file in files]


def pending(server: Server) -> set[str]:
    """Return the requests that the keeper waits for the replies to."""
    return {asked for memo in memos(server) for asked in memo["pending"]}


def test_what_a_slow_client_has_read_long_since_is_known(shared: Server) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    code = "for i in range(100): print(str(i % 10) * 50_000, flush=True)"
    with closing(shared.connect(kernel_id, "slow")) as channels:
        wait_until(lambda: received(shared, kernel_id), 10, "the keeper knows it")
        begun = received(shared, kernel_id)
        request = execute_request(code, "slow")
        channels.send(json.dumps(request))
        wait_until(lambda: received(shared, kernel_id) != begun, 20, "it has some, and no more")
        messages = iter(lambda: json.loads(channels.recv()), None)
        asked = request["header"]["msg_id"]
        ends = (m for m in messages if m["content"].get("execution_state") == "idle")
        assert next(m for m in ends if m["parent_header"].get("msg_id") == asked)
        last = ask_keeper(shared.home, "status")["kernels"][kernel_id]["next"] - 1
        wait_until(lambda: received(shared, kernel_id) == last, 10, "it has all")


def received(server: Server, kernel_id: str) -> int:
    """Return the number of the last message that a kernel's client is known to have."""
    return max((m["received"] for m in memos(server) if m["kernel"] == kernel_id), default=0)


PAUSES = """
import time
from pathlib import Path
for i in range({count}):
    print(i, flush=True)
    time.sleep(0.01)
    while i == {pause} and not Path({sign!r}).exists():
        time.sleep(0.01)
"""


def test_what_was_printed_before_server_and_keeper_ended_together_is_not_lost(
    shared: Server, tmp_path: Path
) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    sign = tmp_path / "go on"
    with LastingClient(shared, kernel_id) as client:
        request = client.execute(PAUSES.format(sign=str(sign), pause=250, count=260))
        wait_until(lambda: "250\n" in client.text(request), 20, "it had printed")
        keepers(shared.home)[0].kill()
        shared.kill()
        killed = datetime.now(timezone.utc)
        shared.start()
        wait_until(lambda: client.connections == 2, 20, "the client was back")
        client.until_heard()
        sign.touch()
        wait_until(lambda: client.is_finished(request), 20, "it had finished")
        printed = client.of(request, "stream")
        lines = client.text(request).split()
        assert [*dict.fromkeys(lines)] == [str(i) for i in range(260)]
        twice = [m for m in printed if printed.count(m) > 1]
        dates = [datetime.fromisoformat(m["header"]["date"].replace("Z", "+00:00")) for m in twice]
        assert all(killed - date < timedelta(seconds=2) for date in dates)


def test_a_cell_that_ends_while_there_is_neither_server_nor_keeper_ends(
    shared: Server, tmp_path: Path
) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    sign, over = tmp_path / "go on", tmp_path / "over"
    code = PAUSES.format(sign=str(sign), pause=9, count=10) + f"Path({str(over)!r}).touch()"
    with LastingClient(shared, kernel_id) as client:
        request = client.execute(code)
        wait_until(lambda: "9\n" in client.text(request), 20, "it had printed")
        keepers(shared.home)[0].kill()
        shared.kill()
        sign.touch()
        wait_until(over.exists, 10, "it was over")
        shared.start()
        wait_until(lambda: client.is_finished(request), 20, "it had finished")
        assert client.text(request).endswith(
            "[Some of this cell's output is lost: the kernel was not heard.]\n"
        )
        finishes(client)


# ------------------------------------------------------------------------ a kernel ends or restarts


@pytest.mark.parametrize("keeper_ends", [False, True])
@pytest.mark.parametrize("how", ["by its user", "by itself"])
def test_clients_of_a_kernel_that_is_started_again_go_on_and_nothing_is_forgotten(
    shared: Server, how: str, keeper_ends: bool
) -> None:
    home = shared.home
    session = new_session(shared)
    kernel_id = session["kernel"]["id"]
    before, after = f"print(0)  # {uuid4()}", f"print(0)  # {uuid4()}"
    with LastingClient(shared, kernel_id) as client, LastingClient(shared, kernel_id) as other:
        finishes(client, before)
        first = ask_keeper(home, "status")["kernels"][kernel_id]["next"]
        if keeper_ends:
            keepers(home)[0].kill()
        if how == "by its user":
            assert shared.post(f"/api/kernels/{kernel_id}/restart").status_code == 200
        else:
            kernel_process(home, kernel_id).kill()
            wait_until(lambda: "restarting" in client.states, 10, "the client heard of it")
        finishes(client, after)
        finishes(other)
        assert (client.connections, other.connections) == (1, 1)
        assert ask_keeper(home, "status")["kernels"][kernel_id]["next"] > first
    wait_until(lambda: after in transcript(shared, session["id"]), 5, "that was recorded")
    assert before in transcript(shared, session["id"])


@pytest.mark.parametrize("how", ["session", "kernel", "culled"])
def test_a_client_of_a_kernel_that_is_ended_hears_its_last_words_and_stays_connected(
    shared: Server, how: str
) -> None:
    other = new_session(shared)["kernel"]["id"]  # the keeper stays for it
    session = new_session(shared, f"{how}.ipynb")
    kernel_id = session["kernel"]["id"]
    with LastingClient(shared, kernel_id) as client:
        finishes(client)
        if how == "culled":
            until_idle(shared, kernel_id)
            reply = shared.post(f"/test/cull/{kernel_id}")
        else:
            path = f"kernels/{kernel_id}" if how == "kernel" else f"sessions/{session['id']}"
            reply = shared.delete(f"/api/{path}")
        assert reply.status_code == 204
        wait_until(lambda: is_forgotten(shared, kernel_id), 10, "the keeper had forgotten it")
        assert "shutdown_reply" in client.kinds
        [keeper] = keepers(shared.home)
        errors = shared.log.count("without its keeper")
        keeper.kill()
        shared.execute(other, "pass")  # over the next one
        assert shared.log.count("without its keeper") == errors
        assert client.is_connected
        assert client.connections == 1


def is_forgotten(server: Server, kernel_id: str) -> bool:
    return kernel_id not in ask_keeper(server.home, "status")["kernels"]


# -------------------------------------------------------------------------- many


def test_what_the_keepers_of_two_servers_on_one_folder_had_the_next_server_has(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    with server_factory() as one, server_factory() as two:
        first, second = new_session(one, "one.ipynb"), new_session(two, "two.ipynb")
        one.execute(first["kernel"]["id"], "print('first')")
        with LastingClient(two, second["kernel"]["id"]) as client:
            request = client.execute(PRINTS.format(count=200))
            until_printed(client, request, 20)
            one.kill()
            two.kill()
            two.start()
            assert_whole(client, request, 200)
        assert transcript(two, first["id"]) == ["print('first')"]
        assert transcript(two, second["id"]) == [PRINTS.format(count=200)]
        wait_until(lambda: len(keepers(home)) == 1, 10, "there was one keeper")


def kept_bytes(home: Home) -> dict[str, int]:
    """Return how many bytes are kept of each kernel, as the keeper says and as files have them."""
    told = {k: kernel["bytes"] for k, kernel in ask_keeper(home, "status")["kernels"].items()}
    for kernel_id, size in told.items():
        files = (keeper_folder(home) / "rings" / f"kernel-{kernel_id}").iterdir()
        assert sum(file.stat().st_size for file in files) == size
    return told


def test_no_more_is_kept_of_all_kernels_and_of_each_than_the_server_that_is_there_says(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    minimal_kernel.install(home)
    limits = "--SessionsApp.journal_total={} --SessionsApp.journal_limit={}"
    args, env = minimal_kernel.OPTIONS["args"], minimal_kernel.OPTIONS["env"]
    server = server_factory(args=[*args, *limits.format(1 << 20, 1 << 20).split()], env=env)
    with server, ExitStack() as stack:
        clients = []
        for _ in range(3):
            kernel_id = server.post("/api/kernels", {"name": "minimal"}).json()["id"]
            clients.append(stack.enter_context(LastingClient(server, kernel_id)))
        for client in clients:
            for _ in range(40):
                request = client.execute("print('x' * 15_000)")
            wait_until(partial(client.is_finished, request), 20, "it had printed")
        sizes = kept_bytes(home)
        assert (1 << 20) * 3 // 4 < sum(sizes.values()) <= 1 << 20
        assert min(sizes.values()) > 50_000
        server.kill()
        server.args[-2:] = limits.format(1 << 20, 1 << 16).split()
        server.start()
        wait_until(lambda: max(kept_bytes(home).values()) <= 3 << 16, 10, "it was there")
        for client in clients:
            wait_until(lambda: client.connections == 2, 10, "the client was back")  # noqa: B023
            request = client.execute("print('y')")
            wait_until(partial(client.is_finished, request), 20, "it had printed")
        assert max(kept_bytes(home).values()) <= 1 << 16


# -------------------------------------------------------------------------- a full disk


@contextmanager
def on_a_small_disk(server: Server) -> Iterator[Path]:
    """Have what a server's keeper keeps on a file system of half a megabyte."""
    server.kill()
    end_keepers(server.home)
    folder = keeper_folder(server.home)
    folder.mkdir(exist_ok=True)
    with small_disk(folder):
        try:
            server.start()
            yield folder
        finally:
            server.kill()
            end_keepers(server.home)


def test_on_a_full_disk_nothing_is_lost_and_it_is_said(shared: Server) -> None:
    with on_a_small_disk(shared) as folder:
        kernel_id = new_session(shared)["kernel"]["id"]
        with LastingClient(shared, kernel_id) as client:
            finishes(client)
            filler = fill(folder)
            request = client.execute(PRINTS.format(count=250))
            until_printed(client, request, 50)
            assert "is kept in memory: [Errno 28]" in keeper_log(shared.home)
            for _ in range(100):  # until the log has no room either
                assert "error" in ask_keeper(shared.home, "none")
            shared.restart()
            assert_whole(client, request, 250)
            filler.unlink()
            finishes(client)
