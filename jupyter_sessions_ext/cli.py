"""``jupyter sessions``: what is kept, and how to end it, with no server running."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_core.paths import jupyter_data_dir

from . import __version__
from .errors import SessionsError, StoreUnavailableError
from .folder import STATE_DIR, Lease, Place, known_places
from .host import is_running
from .kernels.process import signal_group
from .kernels.recovery import observe
from .models import (
    Change,
    Event,
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``jupyter sessions`` and return its exit code."""
    options = _parser().parse_args(arguments)
    state_dir = Path(options.state_dir or os.path.join(jupyter_data_dir(), STATE_DIR))
    try:
        if options.verb == "list":
            return _list(state_dir)
        if not options.all and not options.ids:
            print("jupyter sessions stop: name sessions or kernels, or --all", file=sys.stderr)
            return USAGE
        return _stop(state_dir, None if options.all else set(options.ids))
    except (SessionsError, OSError) as error:
        print(f"jupyter sessions: {error}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jupyter sessions", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--state-dir", help="where SessionsApp.state_dir points, if it was configured"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="sessions and kernels of every workspace")
    stop = verbs.add_parser("stop", help="end kept kernels that no server uses")
    stop.add_argument("ids", nargs="*", metavar="ID", help="a session's or a kernel's id")
    stop.add_argument("--all", action="store_true", help="every kept kernel")
    return parser


# -------------------------------------------------------------------------- list


def _list(state_dir: Path) -> int:
    shown = 0
    for place in known_places(state_dir):
        with _unused(place) as lease:
            state = "no server" if lease else "in use by a server"
            snapshot = _read(place, lease)
            running = {k.record.kernel_id: k for k in _kept(place, snapshot)}
        print(f"{place.root_dir}  ({place.key}, {state})")
        for session in snapshot.sessions:
            kernel = running.get(session.kernel_id or "")
            live = session.state is SessionState.LIVE and kernel is not None
            print(
                f"  {session.session_id}  {'live' if live else 'dormant':8}"
                f"{session.path or ''}  "
                + (
                    f"{_kernel(kernel)}"
                    if live and kernel
                    else f"({session.reason or 'no kernel'})"
                )
            )
            shown += 1
        for kernel in running.values():
            if not kernel.sessions:
                print(f"  (no session)  {_kernel(kernel)}")
                shown += 1
    if not shown:
        print("No sessions and no kernels are kept.")
    return OK


def _kernel(kernel: KeptKernel) -> str:
    return f"{kernel.record.kernel_name} kernel {kernel.record.kernel_id} pid {kernel.process.pid}"


# -------------------------------------------------------------------------- stop


def _stop(state_dir: Path, ids: set[str] | None) -> int:
    """End kept kernels; those of a running server are its own to end."""
    code, ended, found = OK, 0, set[str]()
    for place in known_places(state_dir):
        with _unused(place) as lease:
            snapshot = _read(place, lease)
            kept = [k for k in _kept(place, snapshot) if _is_meant(k, ids)]
            found |= {i for k in kept for i in _ids(k)}
            if not kept:
                continue
            if lease is None:
                print(
                    f"{place.root_dir}: its {len(kept)} kernels belong to a running server; "
                    "end them there, or stop it first (jupyter server stop).",
                    file=sys.stderr,
                )
                code = FAILED
                continue
            print(f"{place.root_dir}: ending {len(kept)} kernels ...", flush=True)
            left = _end(kept)
            gone = [k for k in kept if k not in left]
            ended += len(gone)
            for kernel in left:
                print(f"{_kernel(kernel)} could not be ended", file=sys.stderr)
                code = FAILED
            _record(place, gone)
    unknown = sorted((ids or set()) - found)
    if unknown:
        print(f"No kept kernel belongs to: {', '.join(unknown)}", file=sys.stderr)
        code = FAILED
    print(f"Ended {ended} kernels.")
    return code


def _is_meant(kernel: KeptKernel, ids: set[str] | None) -> bool:
    return ids is None or bool(ids & _ids(kernel))


def _ids(kernel: KeptKernel) -> set[str]:
    return {kernel.record.kernel_id, *(s.session_id for s in kernel.sessions)}


def _end(kernels: Iterable[KeptKernel]) -> list[KeptKernel]:
    """Ask all to shut down, then signal; return those that still run."""
    left = list(kernels)
    for kernel in left:
        _ask(kernel.record)
    left = _wait(left)
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for kernel in left:
            signal_group(kernel.process, signum)
        left = _wait(left)
    return left


def _ask(record: KernelRecord) -> None:
    """Send a shutdown request, so that the kernel's own exit handlers run."""
    with contextlib.suppress(Exception):  # the signals that follow do not depend on it
        client = BlockingKernelClient()
        if record.connection:
            client.load_connection_info(dict(record.connection))  # type: ignore[arg-type]
        else:
            client.load_connection_file(record.connection_file)
        client.shutdown()
        client.stop_channels()


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
            sessions=tuple(replace(s, state=SessionState.DORMANT, reason=reason) for s in sessions),
            forgotten_kernels=tuple(k.record.kernel_id for k in gone),
            events=tuple(
                Event(
                    action="dormant",
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


@contextlib.contextmanager
def _unused(place: Place) -> Iterator[Lease | None]:
    """Hold a workspace's lease, or yield ``None`` when a server has it."""
    lease = Lease.take(place.folder)
    try:
        yield lease
    finally:
        if lease is not None:
            lease.release()


def _read(place: Place, lease: Lease | None) -> Snapshot:
    """Read a workspace; one that a server uses is only looked at."""
    store = store_of(place)
    if not os.path.exists(place.database):
        return Snapshot()
    try:
        return store.open() if lease else store.peek()
    except StoreUnavailableError as error:
        print(f"{place.key}: {error}", file=sys.stderr)
        return Snapshot()


def _kept(place: Place, snapshot: Snapshot) -> list[KeptKernel]:
    """Return the recorded kernels that run on this host, half-started ones included."""
    processes = observe(snapshot.kernels, place.key)
    return [
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
    ]


if __name__ == "__main__":
    sys.exit(main())
