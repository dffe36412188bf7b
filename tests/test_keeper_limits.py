"""A keeper that is short of memory or descriptors, or alone for long, goes on as it should."""

from __future__ import annotations

import json
import resource
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest
from clients import new_session
from homes import TESTS, kernel_process, state_folder
from kept import finishes, keeper_folder
from lasting import LastingClient, assert_whole
from servers import Home, Server, keepers, wait_until

from jupyter_sessions_ext.keeper.log_file import LOG_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="there is no prlimit")


@contextmanager
def limited(process: psutil.Process, what: int, limit: int) -> Iterator[None]:
    """Have a process be short of something."""
    _, most = before = resource.prlimit(process.pid, what)
    resource.prlimit(process.pid, what, (limit, most))
    try:
        yield
    finally:
        resource.prlimit(process.pid, what, before)


LARGE = """
from IPython.display import display
display({"text/plain": "x" * 64_000_000}, raw=True)
"""


def test_a_keeper_that_had_no_memory_for_a_message_hears_the_kernel_again(shared: Server) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    with LastingClient(shared, kernel_id) as client:
        finishes(client)
        [keeper] = keepers(shared.home)
        with limited(keeper, resource.RLIMIT_AS, keeper.memory_info().vms + (60 << 20)):
            request = client.execute(LARGE)
            wait_until(lambda: client.is_finished(request), 30, "the cell had ended")
        for _ in range(3):
            finishes(client)
        with LastingClient(shared, kernel_id) as reloaded:
            finishes(reloaded)
        assert shared.post(f"/api/kernels/{kernel_id}/restart").status_code == 200
        finishes(client)
        shared.restart()
        wait_until(lambda: client.connections == 2, 20, "the client was back")
        finishes(client)
        assert keepers(shared.home) == [keeper]


def test_what_cannot_be_forwarded_for_lack_of_descriptors_is_forwarded_later(
    shared: Server,
) -> None:
    kernel_id = new_session(shared)["kernel"]["id"]
    with ExitStack() as stack:
        first = stack.enter_context(LastingClient(shared, kernel_id))
        finishes(first)
        [keeper] = keepers(shared.home)
        requests: list[tuple[LastingClient, str]] = []
        with limited(keeper, resource.RLIMIT_NOFILE, keeper.num_fds() + 14):
            for _ in range(12):
                client = stack.enter_context(LastingClient(shared, kernel_id))
                requests.append((client, client.execute("print(0)")))
            finishes(first)
        for client, request in requests:
            assert_whole(client, request, 1)
        assert keepers(shared.home) == [keeper]


# -------------------------------------------------------------------------- without a server

FLOODS = """
import os, threading, time
def flood():
    while not os.path.exists({sign!r}):
        time.sleep(0.01)
    for _ in range(28):
        os.write(1, b"x" * 999_999 + b"\\n")
    open({done!r}, "w").close()
threading.Thread(target=flood).start()
"""


def test_a_log_is_shortened_while_no_server_runs(
    home: Home, server: Server, tmp_path: Path
) -> None:
    kernel_id = new_session(server)["kernel"]["id"]
    sign, done = tmp_path / "sign", tmp_path / "done"
    server.execute(kernel_id, FLOODS.format(sign=str(sign), done=str(done)))
    log = state_folder(home) / "logs" / f"kernel-{kernel_id}.log"
    server.kill()
    sign.touch()
    wait_until(done.exists, 20, "it had written")
    mark = b"[... earlier output was dropped ...]"
    wait_until(lambda: log.read_bytes().startswith(mark), 20, "it was shortened")
    assert log.stat().st_size <= LOG_LIMIT


def test_a_connection_file_goes_with_its_kernel_while_no_server_runs(
    home: Home, server: Server
) -> None:
    ended, others = (new_session(server, f"{n}.ipynb")["kernel"]["id"] for n in range(2))
    for kernel_id in (ended, others):
        server.execute(kernel_id, "pass")
    server.kill()
    files = [home.runtime_dir / f"kernel-{kernel_id}.json" for kernel_id in (ended, others)]
    taken = json.loads(files[1].read_text())
    files[1].write_text(json.dumps({**taken, "key": "another kernel's"}))
    for kernel_id in (others, ended):
        kernel_process(home, kernel_id).kill()
    wait_until(lambda: not files[0].exists(), 10, "it was removed")
    until_keeper_has_ended(home)
    assert files[1].exists(), "it is another kernel's by now"


def until_keeper_has_ended(home: Home) -> None:
    wait_until(lambda: not keepers(home), 20, "the keeper had ended")


# -------------------------------------------------------------------------- its own files


def test_a_keeper_imports_nothing_when_it_has_started(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    """It outlives the upgrade of its Python, and of what it imports."""
    args = [
        "--ServerApp.jpserver_extensions={'keeper_watched': True}",
        "--SessionsApp.orphan_timeout=2.5",
    ]
    with server_factory(args=args, env={"PYTHONPATH": str(TESTS)}) as server:
        kernel_id = new_session(server)["kernel"]["id"]
        with LastingClient(server, kernel_id) as client:
            finishes(client)
            for code in (LARGE, "1/0", "input()", "import os; os.write(2, b'x')"):
                request = client.execute(code, allow_stdin=True)
                if code == "input()":
                    wait_until(lambda: "input_request" in client.kinds, 20, "it had asked")
                    client.answer(request, "yes")
                wait_until(lambda r=request: client.is_finished(r), 30, "it had ended")  # type: ignore[misc]
            slow = client.execute("import time; time.sleep(2); print(0)")
            server.restart()
            wait_until(lambda: client.is_finished(slow), 30, "it had ended")
            assert server.post(f"/api/kernels/{kernel_id}/restart").status_code == 200
            finishes(client)
            server.kill()
        folder = keeper_folder(home)
        until_keeper_has_ended(home)
        assert "keeper ends" in (folder / "keeper.log").read_text()
        assert "the kernels are ended" in (folder / "keeper.log").read_text()
        assert (folder / "imports").read_text().splitlines() == ["started"]
