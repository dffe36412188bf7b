"""Fixtures: homes and real servers in them, stores, managers, workspaces; all of them end."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest
from races import Races, held_server
from servers import Home, Server
from session_managers import FakeKernels, MakesManagers
from workspaces import Opens

from jupyter_sessions_ext.storage.sqlite import MEMORY, SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from stores import MakesStores

    from jupyter_sessions_ext.sessions.manager import SessionManager

pytest_plugins = ["pytest_jupyter.jupyter_server", "pages", "kept"]

# In the background of a shell without job control Ctrl-C is ignored, and so it would be by servers.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HOME = pytest.StashKey[Home]()


def require(condition: object, what: str) -> None:
    """Skip the test unless the condition holds; on CI, where nothing may be missing, fail it."""
    if not condition:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what} is missing")


@pytest.fixture(scope="session", autouse=True)
def quick_starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have a server start in a third of the time: without a package that it can do without.

    At import it compiles a grammar, by which jsonschema checks a format that no schema here has.
    """
    folder = tmp_path_factory.mktemp("left-out")
    (folder / "rfc3987_syntax.py").write_text("raise ImportError('left out by conftest.py')\n")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the servers of the test's home have logged."""
    report = yield
    home = item.stash.get(HOME, None)
    if report.failed and home is not None:
        for server in home.servers:
            report.sections.append((f"log of the server on port {server.port}", server.log_tail))
    return report


@pytest.fixture(autouse=True)
def no_process_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check, after all that a test used was closed, that no process of its home is left."""
    yield
    if home := request.node.stash.get(HOME, None):
        assert home.processes() == []


@pytest.fixture
def home(
    no_process_is_left: None, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Home]:
    home = request.node.stash[HOME] = Home(tmp_path / "home")
    yield home
    home.close()


@pytest.fixture
def server_factory(home: Home) -> Callable[..., Server]:
    """Make a server of the test's home from Server's options; it is not started yet."""

    def make(**options: object) -> Server:
        return Server(home, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def server(home: Home) -> Iterator[Server]:
    """Run Jupyter Server, with the extension and no options of its own."""
    with Server(home) as server:
        yield server


@pytest.fixture(scope="module")
def race_options() -> list[str]:
    """Return more arguments of the server whose kernels are held; a module may have its own."""
    return []


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory, race_options: list[str]) -> Iterator[Server]:
    """Run a server whose kernels and requests the tests of a module hold and see."""
    home = Home(tmp_path_factory.mktemp("races") / "home")
    with held_server(home, *race_options) as server:
        yield server
    assert home.processes() == []


@pytest.fixture
def races(held: Server, request: pytest.FixtureRequest) -> Iterator[Races]:
    """Return the server that is held, at rest, with paths and a list of this test's own."""
    with Races(held, request.node.name.replace("/", "-")) as races:
        yield races


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sessions.sqlite"


@pytest.fixture
def make_store(file: Path) -> Iterator[MakesStores]:
    """Make stores that are opened, and closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(location: Path | str = file, *, wal: bool = True) -> SQLiteStore:
            store = SQLiteStore(str(location), wal=wal)
            store.open()
            stack.callback(store.close)
            return store

        yield make


@pytest.fixture
def store(make_store: MakesStores) -> SQLiteStore:
    return make_store()


@pytest.fixture(params=["file", "memory"])
def any_store(request: pytest.FixtureRequest, make_store: MakesStores) -> SQLiteStore:
    return make_store(MEMORY) if request.param == "memory" else make_store()


@pytest.fixture
def kernels() -> FakeKernels:
    return FakeKernels()


@pytest.fixture
def make_manager(kernels: FakeKernels) -> Iterator[MakesManagers]:
    make = MakesManagers(kernels)
    yield make
    for manager in make.made:
        manager.close()


@pytest.fixture(params=["memory", "file"])
def manager(
    request: pytest.FixtureRequest, make_manager: MakesManagers, file: Path
) -> SessionManager:
    """Return a manager with jupyter_server's default database, and one with a file."""
    return make_manager(database_filepath=str(file)) if request.param == "file" else make_manager()


@pytest.fixture
def open_workspace(tmp_path: Path) -> Iterator[Opens]:
    opens = Opens(tmp_path / "state", tmp_path / "notebooks")
    yield opens
    for opened in opens.opened:
        opened.close()
