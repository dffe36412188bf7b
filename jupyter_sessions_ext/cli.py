"""``jupyter sessions``: what is kept, and how to end it, with no server running."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_core.paths import jupyter_data_dir

from . import __version__
from .errors import SessionsError, StoreUnavailableError
from .folder import STATE_DIR, Lease, Place, known_places, prepare
from .host import is_running
from .kernels.process import signal_group
from .kernels.recovery import observe, rebuilt
from .models import (
    Change,
    Event,
    EventAction,
    KernelRecord,
    ProcessIdentity,
    SessionRecord,
    SessionState,
    Snapshot,
)
from .workspace import store_of

POLITE_SECONDS = 5.0
"""How long a kernel has to end by itself, and then again after SIGTERM."""

OK, FAILED, USAGE = 0, 1, 2
"""Exit codes: done; something could not be done and was named; the call was wrong."""


@dataclass(frozen=True, slots=True)
class KeptKernel:
    """A recorded kernel whose process runs."""

    record: KernelRecord
    process: ProcessIdentity
    sessions: tuple[SessionRecord, ...]

    @property
    def ids(self) -> set[str]:
        """What it may be called by."""
        return {self.record.kernel_id, *(s.session_id for s in self.sessions)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``jupyter sessions`` and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.verb == "stop" and not options.all and not options.ids:
        parser.error("stop: name sessions or kernels, or --all")
    given = getattr(options, "state_dir", None)
    if given and not Path(given).is_dir():
        parser.error(f"--state-dir: {given} is not a folder")
    state_dir = Path(given or os.path.join(jupyter_data_dir(), STATE_DIR))
    if options.verb == "list":
        return _list(state_dir)
    return _stop(state_dir, None if options.all else set(options.ids))


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--state-dir",
        default=argparse.SUPPRESS,
        help="the state folder, where SessionsApp.state_dir is configured",
    )
    parser = argparse.ArgumentParser(
        prog="jupyter sessions",
        description="Show the sessions and kernels that are kept, and end those of no server.",
        epilog="Exit codes: 0 done, 1 something could not be done, 2 the call was wrong.",
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    text = "Show the sessions and kernels of every root folder, with and without a server."
    verbs.add_parser("list", parents=[common], help=text, description=text)
    text = "End kept kernels that no server uses; their sessions turn dormant."
    stop = verbs.add_parser("stop", parents=[common], help=text, description=text)
    stop.add_argument("ids", nargs="*", metavar="ID", help="a session's or a kernel's id")
    stop.add_argument("--all", action="store_true", help="every kept kernel, of every root folder")
    return parser


# -------------------------------------------------------------------------- list


def _list(state_dir: Path) -> int:
    problems: list[str] = []
    shown = 0
    for found in _workspaces(state_dir, problems, hold=False):
        running = {k.record.kernel_id: k for k in found.kernels}
        lines = []
        for session in found.snapshot.sessions:
            kernel = running.get(session.kernel_id or "")
            if session.state is SessionState.LIVE and kernel is not None:
                lines.append(f"{session.session_id}  live     {session.path}  {_told(kernel)}")
            else:
                why = session.reason or "no kernel"
                lines.append(f"{session.session_id}  dormant  {session.path}  ({why})")
        lines += [f"(no session)  {_told(k)}" for k in running.values() if not k.sessions]
        if lines:
            use = "no server" if found.is_free else "in use by a server"
            print(f"{found.place.root_dir}  ({use}; {found.place.folder})")
            print("\n".join(f"  {line}" for line in lines))
        shown += len(lines)
    if not shown and not problems:
        print("No sessions and no kernels are kept.")
    return _tell(problems)


def _told(kernel: KeptKernel) -> str:
    return f"{kernel.record.kernel_name} kernel {kernel.record.kernel_id} pid {kernel.process.pid}"


def _tell(problems: Iterable[str]) -> int:
    """Print what could not be done, and return the exit code."""
    code = OK
    for problem in problems:
        print(f"jupyter sessions: {problem}", file=sys.stderr)
        code = FAILED
    return code


# -------------------------------------------------------------------------- stop


def _stop(state_dir: Path, ids: set[str] | None) -> int:
    """End kept kernels; those of a running server are its own to end."""
    problems: list[str] = []
    ended, known, asleep = 0, set[str](), set[str]()
    for found in _workspaces(state_dir, problems, hold=True):
        asleep |= {s.session_id for s in found.snapshot.sessions}
        kept = [k for k in found.kernels if ids is None or ids & k.ids]
        known |= {i for k in kept for i in k.ids}
        if not kept:
            continue
        root = found.place.root_dir
        if not found.is_free:
            problems.append(
                f"{root}: {len(kept)} kernel(s) belong to a running server; end them there, or "
                "stop it first (jupyter server stop)"
            )
            continue
        print(f"{root}: ending {len(kept)} kernel(s) ...", flush=True)
        left = _end(kept)
        gone = [k for k in kept if k not in left]
        ended += len(gone)
        problems += [f"{_told(kernel)} could not be ended" for kernel in left]
        try:
            _record(found.place, gone)
        except StoreUnavailableError as error:
            problems.append(str(error))
    for unknown in sorted((ids or set()) - known):
        why = "has no running kernel" if unknown in asleep else "is no kept session or kernel"
        problems.append(f"{unknown} {why}")
    code = _tell(problems)
    if ended or code == OK:
        print(f"Ended {ended} kernel(s).")
    return code


def _end(kernels: Iterable[KeptKernel]) -> list[KeptKernel]:
    """Ask all to shut down, then signal; return those that still run."""
    left = list(kernels)
    with contextlib.ExitStack() as clients:
        for kernel in left:
            _ask(kernel.record, clients)
        left = _wait(left)
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for kernel in left:
            signal_group(kernel.process, signum)
        left = _wait(left)
    return left


def _ask(record: KernelRecord, clients: contextlib.ExitStack) -> None:
    """Send a shutdown request, so that the kernel's own exit handlers run.

    :param clients: closes the client later: it drops what is not yet sent when it is closed
    """
    with contextlib.suppress(Exception):  # the signals that follow do not depend on it
        client = BlockingKernelClient()
        clients.callback(client.stop_channels)
        if record.connection:
            client.load_connection_info(dict(record.connection))  # type: ignore[arg-type]
        else:
            client.load_connection_file(record.connection_file)
        client.shutdown()


def _wait(kernels: list[KeptKernel]) -> list[KeptKernel]:
    deadline = time.monotonic() + POLITE_SECONDS
    while kernels and time.monotonic() < deadline:
        kernels = [k for k in kernels if is_running(k.process)]
        if kernels:
            time.sleep(0.05)
    return kernels


def _record(place: Place, gone: Iterable[KeptKernel]) -> None:
    """Turn the sessions dormant, and remove what the kernels leave behind."""
    reason = "ended by jupyter sessions stop"
    sessions = [s for k in gone for s in k.sessions]
    store_of(place).commit_now(
        Change(
            sessions=tuple(s.asleep(reason) for s in sessions),
            forgotten_kernels=tuple(k.record.kernel_id for k in gone),
            events=tuple(
                Event(
                    action=EventAction.DORMANT,
                    session_id=s.session_id,
                    kernel_id=s.kernel_id,
                    detail=reason,
                )
                for s in sessions
            ),
        )
    )
    for kernel in gone:
        for path in (kernel.record.connection_file, place.log_file(kernel.record.kernel_id)):
            with contextlib.suppress(OSError):
                os.unlink(path)


# -------------------------------------------------------------------------- the state


@dataclass(frozen=True, slots=True)
class Found:
    """One workspace as it is found."""

    place: Place
    is_free: bool
    snapshot: Snapshot
    kernels: tuple[KeptKernel, ...]


def _workspaces(state_dir: Path, problems: list[str], *, hold: bool) -> Iterator[Found]:
    """Yield every workspace; what is wrong with one is added to ``problems``.

    :param hold: keep a starting server from taking one while it is looked at
    """
    for place in known_places(state_dir):
        try:
            prepare(place)
            lease = Lease.take(place.folder)
        except (SessionsError, OSError) as error:
            problems.append(str(error))
            continue
        is_free = lease is not None
        if lease is not None and not hold:
            lease.release()
            lease = None
        try:
            snapshot = Snapshot()
            if os.path.exists(place.database):
                try:
                    store = store_of(place)
                    snapshot = store.open() if lease else store.peek()
                except SessionsError as error:
                    # Its kernels are found all the same, by the mark that they carry.
                    problems.append(str(error))
                    snapshot = Snapshot(kernels=tuple(rebuilt(place.key)))
            yield Found(place, is_free, snapshot, _kept(place, snapshot))
        finally:
            if lease is not None:
                lease.release()


def _kept(place: Place, snapshot: Snapshot) -> tuple[KeptKernel, ...]:
    """Return the recorded kernels that run on this host, half-started ones included."""
    processes = observe(snapshot.kernels)
    return tuple(
        KeptKernel(
            kernel,
            processes[kernel.kernel_id],
            tuple(
                s
                for s in snapshot.sessions
                if s.kernel_id == kernel.kernel_id and s.state is SessionState.LIVE
            ),
        )
        for kernel in snapshot.kernels
        if kernel.kernel_id in processes
    )


if __name__ == "__main__":
    sys.exit(main())
