"""Fixtures: an isolated home, and real servers in it that are always ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from servers import Home, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest_plugins = ["pytest_jupyter.jupyter_server"]

HOME = pytest.StashKey[Home]()


def require(condition: object, what: str) -> None:
    """Skip the test unless the condition holds; on CI, where nothing may be missing, fail it."""
    if not condition:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what} is missing")


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
