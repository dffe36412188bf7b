"""Sessions and kernels as an earlier server may have recorded them, for recovery to plan with."""

from __future__ import annotations

from dataclasses import replace

from jupyter_sessions_ext.models import (
    KernelPhase,
    KernelRecord,
    ProcessIdentity,
    SessionRecord,
    SessionState,
)

HERE, ELSEWHERE = "this-host", "another-host"
STARTING, RUNNING = KernelPhase.STARTING, KernelPhase.RUNNING
STOPPING, REPLACED = KernelPhase.STOPPING, KernelPhase.REPLACED


def live(session_id: str, kernel_id: str | None) -> SessionRecord:
    return SessionRecord(session_id=session_id, path=f"{session_id}.ipynb", kernel_id=kernel_id)


def dormant(session_id: str, kernel_id: str) -> SessionRecord:
    session = live(session_id, kernel_id)
    return replace(session, state=SessionState.DORMANT, reason="culled", kernel_name="old")


def kernel(
    kernel_id: str,
    phase: KernelPhase = RUNNING,
    *,
    intent: str | None = None,
    machine: str = HERE,
    remote: bool = False,
) -> KernelRecord:
    return KernelRecord(
        kernel_id=kernel_id,
        kernel_name="new",
        phase=phase,
        machine=machine,
        connection_file=f"kernel-{kernel_id}.json",
        intent=live(intent, kernel_id) if intent else None,
        provisioner={"address": "far away"} if remote else {},
    )


def process(kernel_id: str) -> ProcessIdentity:
    return ProcessIdentity(
        pid=sum(kernel_id.encode()), started=1.0, boot="boot", namespace="pid:[1]", machine=HERE
    )
