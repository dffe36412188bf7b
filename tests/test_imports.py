"""Imports point one way, and what needs only a part of the package loads only that part."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import jupyter_sessions_ext
from jupyter_sessions_ext.app import SessionsApp
from jupyter_sessions_ext.sessions.manager import SessionManager

PACKAGE = "jupyter_sessions_ext"
ROOT = Path(jupyter_sessions_ext.__file__).parent

LAYERS = [
    {"app"},
    {"api", "cli", "page"},
    {"administration", "composition", "drain", "listening"},
    {"sessions"},
    {"kernels"},
    {"workspace"},
    {"keeper"},
    {"commits", "retention"},
    {"folder", "lease", "registry"},
    {"events", "metrics", "storage", "tasks"},
    {"host", "options"},
    {"wire"},
    {"models", "errors"},
]
"""Each imports only from those below it; ``DESIGN.md`` has the order."""

RANKS = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in ROOT.rglob("*.py")}
"""Every module by its name but the package itself, which names others lazily."""
MODULES.pop(PACKAGE)


def imported(module: str) -> Iterator[str]:
    """Yield what a module imports, wherever in it: also in functions, and for types alone."""
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield name if name in MODULES else source


def part_of(module: str) -> str:
    """Return the part of the package that a module belongs to: a module or a folder of them."""
    return module.split(".")[1]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_below(module: str) -> None:
    part = part_of(module)
    assert part in RANKS, f"give {part} its place in LAYERS"
    used = {part_of(name) for name in imported(module) if name.startswith(f"{PACKAGE}.")} - {part}
    upwards = {other for other in used if RANKS[other] <= RANKS[part]}
    assert upwards == set()


def test_no_modules_import_each_other() -> None:
    graph = {
        module: {name for name in imported(module) if name in MODULES} - {module}
        for module in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"{' > '.join(error.args[1])}")


def test_only_its_store_imports_aiosqlite() -> None:
    users = {m for m in MODULES if any(name.split(".")[0] == "aiosqlite" for name in imported(m))}
    assert users == {f"{PACKAGE}.storage.sqlite"}


@pytest.mark.parametrize(
    ("module", "not_loaded"),
    [
        ("", ["tornado", "aiosqlite", "jupyter_server", "jupyter_client", "zmq", "psutil"]),
        ("models", ["tornado", "aiosqlite", "jupyter_server", "zmq", "psutil"]),
        ("errors", ["tornado", "aiosqlite", "jupyter_server", "zmq", "psutil"]),
        ("host", ["tornado", "aiosqlite", "jupyter_server", "zmq"]),
        ("metrics", ["tornado", "aiosqlite", "jupyter_server", "jupyter_client", "zmq", "psutil"]),
        ("folder", ["tornado", "aiosqlite", "jupyter_server", "zmq"]),
        ("registry", ["tornado", "aiosqlite", "jupyter_server", "zmq"]),
        ("storage.store", ["tornado", "aiosqlite", "jupyter_server", "zmq"]),
        (
            "cli",
            ["tornado", "aiosqlite", "jupyter_server", "zmq", "psutil", "httpx", "rich", "msgspec"],
        ),
        ("storage.sqlite", ["tornado", "jupyter_server", "zmq"]),
        ("workspace", ["tornado", "jupyter_server.serverapp", "zmq"]),
    ],
)
def test_a_part_loads_no_more_than_it_needs(module: str, not_loaded: list[str]) -> None:
    name = f"{PACKAGE}.{module}".rstrip(".")
    loaded = subprocess.run(
        [sys.executable, "-c", f"import json, sys, {name}; print(json.dumps([*sys.modules]))"],
        capture_output=True,
        text=True,
        check=True,
    )
    modules = json.loads(loaded.stdout)
    assert name in modules
    assert set(not_loaded) & set(modules) == set()


def test_the_public_names_are_there() -> None:
    assert jupyter_sessions_ext.SessionsApp is SessionsApp
    assert jupyter_sessions_ext.SessionManager is SessionManager
    assert {"SessionManager", "SessionsApp", "__version__"} == set(jupyter_sessions_ext.__all__)
    for name in jupyter_sessions_ext.__all__:
        assert getattr(jupyter_sessions_ext, name)


def test_there_are_no_other_names() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = jupyter_sessions_ext.nonsense


def test_jupyter_server_finds_the_extension() -> None:
    assert jupyter_sessions_ext._jupyter_server_extension_points() == [
        {"module": PACKAGE, "app": SessionsApp}
    ]
