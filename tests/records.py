"""Records in which every field differs from its default, to be stored and found again."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from jupyter_sessions_ext.models import (
    Change,
    Event,
    EventAction,
    KernelPhase,
    KernelRecord,
    ProcessIdentity,
    ServerRecord,
    SessionRecord,
    SessionState,
)

WHEN = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=timezone.utc)
PROCESS = ProcessIdentity(pid=7, started=123.5, boot="b", namespace="pid:[1]", machine="host")
SESSION = SessionRecord(
    session_id="s",
    path="å/⌘ 'quoted'\n.ipynb",
    name="",
    type="notebook",
    kernel_id="k",
    state=SessionState.DORMANT,
    reason="culled",
    kernel_name="python3",
    created_at=WHEN,
    created_by="ada",
    since=WHEN + timedelta(hours=1),
)
KERNEL = KernelRecord(
    kernel_id="k",
    kernel_name="python3",
    phase=KernelPhase.STOPPING,
    machine="host",
    connection_file="kernel-k.json",
    connection={"key": b"\x00\xff secret", "shell_port": 5},
    launch={"cwd": "somewhere", "extra_arguments": ["--debug"]},
    provisioner={"keys": [{"key": b""}], "process": {"pid": None}},
    process=PROCESS,
    intent=replace(SESSION, session_id="t", state=SessionState.LIVE),
    execution_state="busy",
    last_activity=WHEN + timedelta(microseconds=1),
    started_at=WHEN,
    adoptions=3,
)
EVENT = Event(
    action=EventAction.DORMANT,
    session_id="s",
    kernel_id="k",
    detail="culled",
    user="ada",
    time=WHEN,
)
SERVER = ServerRecord(server_id="server", process=PROCESS, hostname="host", started_at=WHEN)
EVERYTHING = Change(sessions=(SESSION,), kernels=(KERNEL,), events=(EVENT,), server=SERVER)
LATER = Change(sessions=(replace(SESSION, session_id="later"),))
