"""What to do with recorded sessions and kernels when a server starts.

:func:`plan` compares the records with the processes that run. It is pure; ``tests/test_plan.py``
is its table of cases.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from .. import metrics
from ..errors import AdoptionError, KernelGoneError, StoreUnavailableError
from ..folder import Place, read_object
from ..host import (
    boot_id,
    environment,
    find_marked,
    find_processes,
    identify,
    is_running,
    machine_id,
    pid_namespace,
    started_before,
)
from ..keeper.protocol import ended_file
from ..models import (
    Change,
    Event,
    EventAction,
    KernelPhase,
    KernelRecord,
    ProcessIdentity,
    SessionRecord,
    SessionState,
    now,
)
from ..workspace import Workspace
from .process import signal_group
from .provisioner import SESSION_MARK

KERNEL_ENDED = "its kernel ended while no server ran"
KERNEL_STOPPED = "its kernel was being shut down when the server ended"
KERNEL_NOT_KEPT = "its kernel was not kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Take charge of a running kernel; ``session`` is brought back with it."""

    kernel: KernelRecord
    session: SessionRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Kill what is left of a kernel that nobody uses."""

    kernel: KernelRecord
    process: ProcessIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Drop the record of a kernel that is gone."""

    kernel: KernelRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """Turn a session dormant."""

    session: SessionRecord
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Touch neither this kernel nor its sessions: they are not this server's to judge."""

    kernel: KernelRecord


Action = Adopt | End | Forget | Sleep | Leave


def plan(
    sessions: Iterable[SessionRecord],
    kernels: Iterable[KernelRecord],
    processes: Mapping[str, ProcessIdentity],
    machine: str,
    reaped: Mapping[str, str] | None = None,
) -> list[Action]:
    """Return what makes the records true again.

    :param processes: the process of each kernel of this host that runs, by kernel id
    :param machine: this host
    :param reaped: why kernels were ended while there was no server, by kernel id; one that runs
        still is being ended
    """
    by_id = {s.session_id: s for s in sessions}
    known = {k.kernel_id: k for k in kernels}
    users: dict[str | None, list[SessionRecord]] = {}
    for session in by_id.values():
        if session.state is SessionState.LIVE:
            users.setdefault(session.kernel_id, []).append(session)
    runs = {
        k.kernel_id
        for k in known.values()
        if k.machine != machine or k.is_elsewhere or k.kernel_id in processes
    }
    actions: list[Action] = []
    brought_back: set[str] = set()
    for kernel in known.values():
        process = processes.get(kernel.kernel_id)
        unwanted = _unwanted(kernel, users)
        if kernel.machine != machine or (kernel.is_elsewhere and unwanted):
            actions.append(Leave(kernel=kernel))
        elif kernel.kernel_id not in runs:
            actions.append(Forget(kernel=kernel))
        elif process is not None and (unwanted or kernel.kernel_id in (reaped or {})):
            actions.append(End(kernel=kernel, process=process))
        else:
            claimed, back = _claimed(kernel, by_id, users, runs)
            if claimed and (back is None or back.session_id in brought_back):
                # A change of kernel that was never acknowledged: the session has another one.
                actions.append(
                    End(kernel=kernel, process=process) if process else Leave(kernel=kernel)
                )
                continue
            if back is not None:
                brought_back.add(back.session_id)
            actions.append(Adopt(kernel=_running(kernel, process), session=back))
    reasons = {a.kernel.kernel_id: _reason(a) for a in actions if isinstance(a, End | Forget)}
    reasons |= {k: reason for k, reason in (reaped or {}).items() if k in reasons}
    for kernel_id, group in users.items():
        reason = reasons.get(kernel_id or "", None if kernel_id in known else KERNEL_NOT_KEPT)
        if reason is not None:
            actions += [
                Sleep(session=s, reason=reason) for s in group if s.session_id not in brought_back
            ]
    return actions


def _claimed(
    kernel: KernelRecord,
    sessions: Mapping[str, SessionRecord],
    users: Mapping[str | None, list[SessionRecord]],
    runs: set[str],
) -> tuple[bool, SessionRecord | None]:
    """Return whether a kernel was started for a session that was not committed, and that session.

    The session is ``None`` where it has another kernel that runs.
    """
    if kernel.intent is None or users.get(kernel.kernel_id):
        return False, None
    session = sessions.get(kernel.intent.session_id, kernel.intent)
    if (
        session is not kernel.intent
        and session.state is SessionState.LIVE
        and session.kernel_id in runs
    ):
        return True, None
    return True, replace(
        session,
        kernel_id=kernel.kernel_id,
        kernel_name=kernel.kernel_name,
        state=SessionState.LIVE,
        reason="",
    )


def _running(kernel: KernelRecord, process: ProcessIdentity | None) -> KernelRecord:
    return replace(
        kernel,
        process=process,
        phase=KernelPhase.RUNNING,
        intent=None,
        adoptions=kernel.adoptions + 1,
    )


def _unwanted(kernel: KernelRecord, users: Mapping[str | None, list[SessionRecord]]) -> bool:
    """Tell whether its end had been asked for, or its only session has another kernel."""
    return kernel.phase is KernelPhase.STOPPING or (
        kernel.phase is KernelPhase.REPLACED and not users.get(kernel.kernel_id)
    )


def _reason(action: End | Forget) -> str:
    return KERNEL_STOPPED if action.kernel.phase is KernelPhase.STOPPING else KERNEL_ENDED


# ---------------------------------------------------------------------- observe, apply


@metrics.RECOVERY_SECONDS.time()
def recover(workspace: Workspace, adopt: Callable[[KernelRecord], None] | None) -> None:
    """Bring a workspace that was just opened in line with the processes of this host.

    All of it is one transaction. It blocks: it runs before HTTP listens.

    :param adopt: takes charge of one kernel; it is left alone where that raises, and forgotten
        where it raises :class:`KernelGoneError`; ``None`` when the kernel manager can adopt none
    """
    began = time.monotonic()
    workspace.recovered = True
    registry = workspace.registry
    kernels = list(registry.kernels.values())
    kernels += _found_again(workspace)
    processes = observe(kernels)
    reasons = reaped(workspace.place, processes) if workspace.place is not None else {}
    actions = plan(registry.sessions.values(), kernels, processes, machine_id(), reasons)
    sessions: dict[str, SessionRecord] = {}
    kept: list[KernelRecord] = []
    gone: list[KernelRecord] = []
    for action in actions:
        if isinstance(action, Leave) or (isinstance(action, Adopt) and adopt is None):
            workspace.log.warning(
                "Kernel %s is left alone: it belongs to another host, or to a kernel manager that "
                "this server does not use.",
                action.kernel.kernel_id,
            )
            metrics.recovered_kernel("left")
        elif isinstance(action, Adopt):
            left = registry.sessions.get(action.session.session_id) if action.session else None
            if left is not None and left.state is SessionState.LIVE:
                # Its own kernel is gone; unless it gets this one, it sleeps.
                sessions[left.session_id] = left.asleep(KERNEL_ENDED)
            try:
                assert adopt is not None
                adopt(action.kernel)
            except KernelGoneError as error:
                workspace.log.warning("%s", error)
                metrics.recovered_kernel("gone")
                gone.append(action.kernel)
                for session in registry.of_kernel(action.kernel.kernel_id):
                    sessions[session.session_id] = session.asleep(KERNEL_ENDED)
                continue
            except Exception as error:  # whatever a user's classes raise: the server must start
                workspace.log.error(
                    "Kernel %s cannot be adopted and is left running: %r",
                    action.kernel.kernel_id,
                    error,
                    exc_info=not isinstance(error, AdoptionError),
                )
                metrics.recovered_kernel("failed")
                continue
            metrics.recovered_kernel("adopted")
            kept.append(action.kernel)
            if action.session is not None:
                sessions[action.session.session_id] = replace(action.session, since=now())
        elif isinstance(action, Sleep):
            sessions[action.session.session_id] = action.session.asleep(action.reason)
        else:
            if isinstance(action, End):
                with contextlib.suppress(OSError):
                    signal_group(action.process, signal.SIGKILL)
            metrics.recovered_kernel("ended" if isinstance(action, End) else "gone")
            gone.append(action.kernel)
    workspace.adopted = {kernel.kernel_id for kernel in kept}
    for session in sessions.values():
        metrics.recovered_session(session)
    for kernel in gone:
        with contextlib.suppress(OSError):
            os.unlink(kernel.connection_file)
    change = Change(
        sessions=tuple(sessions.values()),
        kernels=tuple(kept),
        forgotten_kernels=tuple(k.kernel_id for k in gone),
        events=tuple(_events(sessions.values(), kept)),
        server=workspace.server,
    )
    workspace.commit_now(change)
    if actions:
        workspace.log.info(
            "Adopted %d kernels in %.3f s; %d have ended, %d sessions are dormant.",
            len(kept),
            time.monotonic() - began,
            len(gone),
            sum(s.state is SessionState.DORMANT for s in registry.sessions.values()),
        )


def _events(sessions: Iterable[SessionRecord], kernels: Iterable[KernelRecord]) -> Iterable[Event]:
    for session in sessions:
        live = session.state is SessionState.LIVE
        yield Event(
            action=EventAction.RECOVERED if live else EventAction.DORMANT,
            session_id=session.session_id,
            kernel_id=session.kernel_id,
            detail=session.reason,
        )
    for kernel in kernels:
        yield Event(action=EventAction.ADOPTED, kernel_id=kernel.kernel_id)


def reaped(place: Place, processes: Mapping[str, ProcessIdentity]) -> dict[str, str]:
    """Return why the keeper of a place has ended kernels, by kernel id.

    :param processes: those of the kernels that run; what started afterwards is another one's
    """
    file = ended_file(place.keeper)
    with contextlib.suppress(OSError):
        noted = file.stat().st_mtime
        return {
            k: str(reason)
            for k, reason in read_object(file).items()
            if k not in processes or started_before(processes[k], noted)
        }
    return {}


def observe(kernels: Iterable[KernelRecord]) -> dict[str, ProcessIdentity]:
    """Return the process of each kernel that runs on this host."""
    processes: dict[str, ProcessIdentity] = {}
    missing: dict[str, str] = {}
    for kernel in kernels:
        if kernel.machine != machine_id():
            continue
        if kernel.process is not None and is_running(kernel.process):
            processes[kernel.kernel_id] = kernel.process
        elif kernel.process is None or (
            # A restart whose record was not committed: the same file, another process.
            kernel.process.boot == boot_id() and kernel.process.namespace == pid_namespace()
        ):
            missing[os.path.realpath(kernel.connection_file)] = kernel.kernel_id
    if missing:
        for kernel_id, pid in find_processes(missing).items():
            process = identify(pid)
            if process is not None:
                processes[kernel_id] = process
    return processes


def _found_again(workspace: Workspace) -> list[KernelRecord]:
    """Return the kernels whose records are lost, but for those that others have recorded."""
    if not workspace.lost:
        return []
    try:
        known = workspace.recorded_by_others() | set(workspace.registry.kernels)
    except StoreUnavailableError as error:
        workspace.log.error("Kernels without a record are not looked for: %s.", error)
        return []
    found = {k.kernel_id: k for key in workspace.lost for k in rebuilt(key)}
    return [k for k in found.values() if k.kernel_id not in known]


def rebuilt(mark: str) -> Iterable[KernelRecord]:
    """Make records of kernels that run although the store has lost them."""
    for kernel_id, pid, connection_file in find_marked(mark):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, psutil.Error):
            connection = read_object(Path(connection_file))
            row: dict[str, Any] | None = json.loads(environment(pid).get(SESSION_MARK, "null"))
            yield KernelRecord(
                kernel_id=kernel_id,
                kernel_name=connection.pop("kernel_name"),
                phase=KernelPhase.STARTING,
                machine=machine_id(),
                connection_file=connection_file,
                connection=connection,
                launch={"cwd": psutil.Process(pid).cwd()},
                process=identify(pid),
                intent=SessionRecord(**{**row, "kernel_id": kernel_id}) if row else None,
            )
