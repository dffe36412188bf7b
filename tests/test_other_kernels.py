"""Kernels of another language, and of another implementation, lose nothing either."""

from __future__ import annotations

import json
import random
import sys
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from clients import new_session
from conftest import require
from drills import drill_count
from homes import until_ended
from lasting import LastingClient, assert_whole, until_printed
from servers import Home, Server, keepers, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = {"bash": "bash_kernel", "xpython": "xpython"}

PRINTS = {
    "bash": "for ((i = 0; i < {count}; i++)); do echo $i; sleep 0.01; done",
    "xpython": "import time\nfor i in range({count}): print(i, flush=True); time.sleep(0.01)",
}

BASH = {
    "argv": [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"],
    "display_name": "Bash",
    "language": "bash",
    "env": {"PS1": "$"},
}


@pytest.fixture(params=[*PACKAGES])
def kernel_name(request: pytest.FixtureRequest, home: Home) -> str:
    name: str = request.param
    require(find_spec(PACKAGES[name]), PACKAGES[name])
    if name == "bash":  # its package has no kernel spec
        folder = home.data_dir / "kernels" / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps(BASH))
    return name


@pytest.fixture
def clients(server: Server, kernel_name: str) -> Iterator[tuple[LastingClient, LastingClient]]:
    """Connect two clients to one kernel."""
    kernel_id = new_session(server, kernel={"name": kernel_name})["kernel"]["id"]
    with LastingClient(server, kernel_id) as client, LastingClient(server, kernel_id) as other:
        yield client, other


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_cells_of_other_kernels_go_on_over_ends_of_servers_and_of_keepers(
    home: Home,
    server: Server,
    kernel_name: str,
    clients: tuple[LastingClient, LastingClient],
) -> None:
    client, other = clients
    dice = random.Random(3)

    def assert_both_whole(request: str, count: int) -> None:
        assert_whole(client, request, count)
        wait_until(partial(other.was_idle_after, request), 10, "the other has it")
        assert other.text(request) == client.text(request)

    for number in range(drill_count(4, 200)):
        ends_meanwhile = number % 2 == 1
        count = 40 if ends_meanwhile else 150
        request = client.execute(PRINTS[kernel_name].format(count=count))
        until_printed(client, request, dice.randint(1, 20))
        server.kill() if number % 4 < 2 else server.terminate()
        if ends_meanwhile:
            until_ended(home, request)
        server.start()
        assert_both_whole(request, count)
    for _ in range(drill_count(2, 50)):
        request = client.execute(PRINTS[kernel_name].format(count=80))
        until_printed(client, request, dice.randint(1, 60))
        [keeper] = keepers(home)
        keeper.kill()
        assert_both_whole(request, 80)
    if kernel_name == "xpython":
        assert_questions_are_answered(server, client)


def assert_questions_are_answered(server: Server, client: LastingClient) -> None:
    """Check that one is asked also while no server is there, and can be answered."""
    server.restart()  # the kernel is idle: its channels for questions were never used
    for restarts_before in (False, True):
        code = f"import time; time.sleep({restarts_before:d}); print(input('who?'))"
        request = client.execute(code, allow_stdin=True)
        awaited = "execute_input" if restarts_before else "input_request"
        wait_until(partial(client.of, request, awaited), 20, f"there was an {awaited}")
        connections = client.connections
        server.restart()
        wait_until(lambda: client.connections > connections, 20, "the client was back")  # noqa: B023
        wait_until(partial(client.of, request, "input_request"), 20, "it was asked")
        client.answer(request, "me")
        wait_until(partial(client.is_finished, request), 20, "the cell had finished")
        assert client.text(request) == "me\n"
        assert len(client.of(request, "input_request")) == 1
