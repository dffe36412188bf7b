"""The package is replaced under a running server, by a newer one or an older: nothing is lost."""

from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clients import new_session, sessions
from drills import FULL
from kept import keeper_log
from lasting import PRINTS, LastingClient, assert_whole, until_printed
from servers import Home, Server, keepers, wait_until

import jupyter_sessions_ext

if TYPE_CHECKING:
    from collections.abc import Callable

OLD = Path(__file__).parent / "data" / "jupyter_sessions_ext-82e11a1.tar.xz"
"""The package of the last version whose server tells the keeper no version."""


PROTOCOLS = {
    ("old", True): [2, 3],
    ("old", False): [3],
    ("new", True): [3],
    ("new", False): [2, 2],
}
"""Of the keepers that are started, by the version before and by whether there is one by then."""


def install(folder: Path, which: str) -> None:
    """Put a version of the package into a folder, in place of the one that is there."""
    shutil.rmtree(folder / "jupyter_sessions_ext", ignore_errors=True)
    if which == "old":
        with tarfile.open(OLD) as archive:
            archive.extractall(folder)
    else:
        source = Path(jupyter_sessions_ext.__file__).parent
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / "jupyter_sessions_ext", ignore=ignored)


def of_keepers(log: str) -> list[str]:
    """Return the lines of a server's log about keepers."""
    return [line for line in log.splitlines() if "keeper" in line.lower()]


@pytest.mark.drill
@pytest.mark.parametrize("has_keeper", [True, False], ids=["keeper", "no keeper"])
@pytest.mark.parametrize("before", ["old", "new"], ids=["upgrade", "downgrade"])
@pytest.mark.parametrize("end", ["kill", "terminate"] if FULL else ["kill"])
def test_a_package_that_is_replaced_under_a_server_loses_nothing(
    before: str,
    has_keeper: bool,
    end: str,
    home: Home,
    server_factory: Callable[..., Server],
    tmp_path: Path,
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    install(packages, before)
    with server_factory(env={"PYTHONPATH": str(packages)}) as server:
        known: dict[str, str] = {}

        def open_session(path: str) -> str:
            kernel_id: str = new_session(server, path)["kernel"]["id"]
            assert server.execute(kernel_id, f"x = {path!r}; print(x)") == f"{path}\n"
            known[path] = kernel_id
            return kernel_id

        if has_keeper:
            open_session("a.ipynb")
        install(packages, "new" if before == "old" else "old")
        kernel_id = open_session("first.ipynb")
        with LastingClient(server, kernel_id) as client:
            request = client.execute(PRINTS.format(count=150))
            until_printed(client, request, 10)
            goes_without = before == "new" and not has_keeper
            if goes_without:  # what is printed while no server runs is lost, as was said
                assert_whole(client, request, 150)
            getattr(server, end)()
            server.start()
            assert_whole(client, request, 150)
            assert_whole(client, client.execute("print(0)"), 1)
        assert {s["path"]: s["kernel"]["id"] for s in sessions(server)} == known
        for path, kernel_id in known.items():
            assert server.execute(kernel_id, "print(x)") == f"{path}\n"
        wait_until(lambda: len(keepers(home)) == 1, 10, "there was one keeper")
        said = of_keepers(server.log)
        assert len(said) <= 1, said
        assert not goes_without or "restart the server" in said[0]
        protocols = [int(found) for found in re.findall(r"of protocol (\d)", keeper_log(home))]
        assert protocols == PROTOCOLS[before, has_keeper]
