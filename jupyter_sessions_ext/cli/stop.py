"""``stop``: end kernels, those that no server uses and those of a server that runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from jupyter_client.blocking.client import BlockingKernelClient

from ..errors import SessionsError, StoreUnavailableError
from ..folder import Place
from ..host import is_running
from ..kernels.process import signal_group
from ..models import Change, Event, EventAction, KernelRecord
from ..workspace import store_of
from .items import kernel_id, names
from .kept import Kept, KeptKernel, held, told
from .outcome import CommandError, tell
from .servers import Server, at_once
from .sources import Running, Source, Where, opened, read, resolved
from .tables import Progress, print_json, progress

POLITE_SECONDS = 5.0
"""How long a kernel has to end by itself, and then again after SIGTERM."""

Result = dict[str, Any]
"""What became of one kernel."""


def stop(options: argparse.Namespace, where: Where) -> int:
    """End kernels: those that are named, wherever they run, or all that no server uses."""
    problems: list[str] = []
    results: list[Result] = []
    with opened(where, problems) as sources:
        if options.all:
            meant = [*_all(sources, problems, running=options.running)]
        else:
            meant = [*_named(options.ids, sources, problems)]
        for source, kernels in meant:
            if not options.json:
                print(f"{source.root_dir}: ending {len(kernels)} kernel(s) ...", flush=True)
            with progress(f"ending kernels of {source.root_dir}", len(kernels)) as shown:
                if isinstance(source, Running):
                    results += _end_running(source, kernels, shown)
                else:
                    results += _end_kept(source.place, kernels, problems, shown)
    problems += [f"kernel {r['kernel_id']}: {r['message']}" for r in results if not r["done"]]
    if options.json:
        print_json(results)
        return tell(problems)
    ended = sum(result["done"] for result in results)
    code = tell(problems)
    if ended or not problems:
        print(f"Ended {ended} kernel(s).")
    return code


def _all(
    sources: Sequence[Source], problems: list[str], *, running: bool
) -> Iterator[tuple[Source, list[str]]]:
    """Yield all kernels; those that are a server's only if they are asked for, too."""
    for source in sources:
        found = {k: None for item in read(source, problems) if (k := kernel_id(item)) is not None}
        kernels = [*found]
        if isinstance(source, Kept):
            kernels = [kernel.record.kernel_id for kernel in source.kernels]
            if source.is_elsewhere:  # they cannot be seen from here
                kernels = [kernel.kernel_id for kernel in source.snapshot.kernels]
        if not kernels:
            continue
        if isinstance(source, Running) and not running:
            problems.append(
                f"{source.root_dir}: {len(kernels)} kernel(s) belong to a running server, "
                f"{source.url}; --running ends them, too"
            )
        elif isinstance(source, Kept) and source.is_in_use:
            problems.append(f"{source.root_dir}: {len(kernels)} {_out_of_reach(source)}")
        else:
            yield source, kernels


def _named(
    references: Sequence[str], sources: Sequence[Source], problems: list[str]
) -> Iterator[tuple[Source, list[str]]]:
    """Yield the kernels that are named."""
    kernels: dict[Source, dict[str, None]] = {}
    for source, item in resolved(references, sources, problems):
        found = kernel_id(item)
        if found is None:
            problems.append(f"{names(item)} has no running kernel")
        elif isinstance(source, Kept) and source.is_in_use:
            problems.append(f"{names(item)}: 1 {_out_of_reach(source)}")
        else:
            kernels.setdefault(source, {})[found] = None
    yield from ((source, [*found]) for source, found in kernels.items())


def _out_of_reach(source: Kept) -> str:
    if source.is_elsewhere:
        return "kernel(s) are another container's; end them there"
    return (
        f"kernel(s) belong to a running server ({source.holder}) that cannot be "
        "asked; end them there, or stop it first (`jupyter server stop`)"
    )


# -------------------------------------------------------------------------- a server's kernels


def _end_running(source: Running, kernels: Sequence[str], shown: Progress) -> list[Result]:
    """Have a server end kernels."""

    def end(kernel: str) -> Result:
        return _result(kernel, source.root_dir, _asked_to_end(source.server, kernel))

    return at_once(end, kernels, done=shown.advance)


def _asked_to_end(server: Server, kernel: str) -> str:
    """Have a server end one kernel, and return why it did not."""
    try:
        server.request("DELETE", f"/kernels/{quote(kernel, safe='')}")
    except CommandError as error:
        return str(error)
    return ""


def _result(kernel: str, root_dir: str, message: str) -> Result:
    return {"kernel_id": kernel, "root_dir": root_dir, "done": not message, "message": message}


# -------------------------------------------------------------------------- kernels of no server


def _end_kept(
    place: Place, kernels: Collection[str], problems: list[str], shown: Progress
) -> list[Result]:
    """End kernels that no server uses; none may start with them meanwhile."""
    try:
        with held(place, "stop") as found:
            meant = [k for k in found.kernels if k.record.kernel_id in kernels]
            left = _end(meant, shown)
            gone = [k for k in meant if k not in left]
            try:
                _record(place, gone)
            except StoreUnavailableError as error:
                problems.append(str(error))
    except (CommandError, SessionsError, OSError) as error:
        problems.append(str(error))
        return []
    return [
        *(_result(k.record.kernel_id, place.root_dir, "") for k in gone),
        *(_result(k.record.kernel_id, place.root_dir, f"{told(k)} withstood") for k in left),
    ]


def _end(kernels: Iterable[KeptKernel], shown: Progress) -> list[KeptKernel]:
    """Ask all to shut down, then signal; return those that still run."""
    left = list(kernels)
    with contextlib.ExitStack() as clients:
        for kernel in left:
            _ask(kernel.record, clients)
        left = _wait(left, shown)
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for kernel in left:
            signal_group(kernel.process, signum)
        left = _wait(left, shown)
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


def _wait(kernels: list[KeptKernel], shown: Progress) -> list[KeptKernel]:
    deadline = time.monotonic() + POLITE_SECONDS
    while kernels and time.monotonic() < deadline:
        left = [k for k in kernels if is_running(k.process)]
        shown.advance(len(kernels) - len(left))
        kernels = left
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
