"""``jupyter sessions`` in a home, in this process, and homes where something is kept."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from jupyter_sessions_ext.cli import main
from jupyter_sessions_ext.folder import Place, describe, places, prepare
from jupyter_sessions_ext.workspace import store_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from servers import Home

    from jupyter_sessions_ext.models import Change


MODULE = [sys.executable, "-m", "jupyter_sessions_ext.cli"]


@dataclass(frozen=True)
class Done:
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(
    home: Home, *arguments: str | Path, text: bytes = b"", env: Mapping[str, str] | None = None
) -> Done:
    """Run a command as a user of the home.

    :param text: what is on the standard input
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    environment = {**home.environment(), **(env or {})}
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(text))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Done(code, _read(out), _read(err))


def _read(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


def keep(home: Home, change: Change, root_dir: Path | None = None) -> Place:
    """Leave sessions and kernels in a home, as a server does that has ended."""
    root_dir = root_dir or home.root_dir
    state_dir = home.data_dir / "jupyter_sessions_ext"
    place = next(places(state_dir, str(root_dir), None))
    prepare(place)
    describe(place)
    store = store_of(place)
    store.open()
    store.commit_now(change)
    return place


def on_terminal(home: Home, *arguments: str, **environment: str) -> str:
    """Return what a command prints on a terminal."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*MODULE, *arguments],
            env={**home.environment(), "COLUMNS": "200", "TERM": "xterm", **environment},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # so it ends on Linux
            while part := os.read(ours, 65536):
                said += part
        assert process.wait(30) == 0, said
    finally:
        os.close(ours)
    return said.decode()


_HOLD = """
import sys
from pathlib import Path
from jupyter_sessions_ext.lease import Lease

lease = Lease.take(Path(sys.argv[1]))
print(lease is not None, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def another_process(code: str, path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Have another process run code until the end; yield the line that it tells, and the process.

    :param path: its argument
    """
    with subprocess.Popen(
        [sys.executable, "-c", code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()
            process.communicate()  # until what it has started has ended, too


@contextlib.contextmanager
def held_lease(place: Place) -> Iterator[int]:
    """Have another process hold the lease, as a server does that cannot be asked; yield its pid."""
    with another_process(_HOLD, place.folder) as (told, process):
        assert told == "True"
        yield process.pid


def write_server_file(home: Home, url: str, **values: Any) -> Path:
    """Tell of a running server as jupyter_server does; its process is this one."""
    file = home.runtime_dir / f"jpserver-{os.getpid()}.json"
    told = {"pid": os.getpid(), "url": url, "token": "", "root_dir": str(home.root_dir), **values}
    file.write_text(json.dumps(told))
    return file
