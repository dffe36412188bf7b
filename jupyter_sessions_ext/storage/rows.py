"""How records are written into columns, and read from them, in any SQL store."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from ..models import (
    SYSTEM,
    Change,
    KernelPhase,
    KernelRecord,
    ProcessIdentity,
    ServerRecord,
    SessionRecord,
    SessionState,
    now,
)
from .history import INSERT_EVENT, event_row

Statement = tuple[str, Sequence[Sequence[Any]]]


def to_json(value: Any) -> str:
    """Encode a value that may hold bytes (a provisioner's keys) and times."""
    return json.dumps(value, default=_json_default)


def from_json(text: str | None) -> Any:
    """Decode what :func:`to_json` wrote."""
    return None if text is None else json.loads(text, object_hook=_json_object)


def statements(change: Change) -> Iterator[Statement]:
    """Yield each statement of a change with the rows that it is executed for."""
    sessions, kernels, history = change.sessions, change.kernels, change.history
    forgotten = [(session_id,) for session_id in change.forgotten_sessions]
    candidates: list[Statement] = [
        ("UPDATE event SET session_id=? WHERE session_id=?", [(b, a) for a, b in change.absorbed]),
        ("DELETE FROM session WHERE session_id=?", forgotten),
        ("DELETE FROM session_detail WHERE session_id=?", forgotten),
        (_UPSERT_SESSION, [tuple(s.row().values()) for s in sessions]),
        (_UPSERT_DETAIL, [_detail_row(s) for s in sessions]),
        ("DELETE FROM kernel WHERE kernel_id=?", [(k,) for k in change.forgotten_kernels]),
        (_UPSERT_KERNEL, [_kernel_row(k) for k in kernels]),
        (
            "UPDATE kernel SET execution_state=?, last_activity=? WHERE kernel_id=?",
            [
                (a.execution_state, a.last_activity.isoformat(), a.kernel_id)
                for a in change.activity
            ],
        ),
        (INSERT_EVENT, [event_row(e) for e in (*change.past, *change.events)]),
        (_UPSERT_SERVER, [_server_row(change.server)] if change.server else []),
        (
            "DELETE FROM event WHERE time<?",
            [(history.since.isoformat(),)] if history and history.since else [],
        ),
        (
            "DELETE FROM event WHERE event_id<=(SELECT max(event_id) FROM event) - ?",
            [(history.most,)] if history and history.most else [],
        ),
    ]
    return (candidate for candidate in candidates if candidate[1])


_UPSERT_SESSION = (
    "INSERT INTO session (session_id, path, name, type, kernel_id) VALUES (?,?,?,?,?) "
    "ON CONFLICT (session_id) DO UPDATE SET path=excluded.path, name=excluded.name, "
    "type=excluded.type, kernel_id=excluded.kernel_id"
)
_UPSERT_DETAIL = (
    "INSERT INTO session_detail (session_id, state, reason, kernel_name, created_at, created_by, "
    "since) VALUES (?,?,?,?,?,?,?) ON CONFLICT (session_id) DO UPDATE SET state=excluded.state, "
    "reason=excluded.reason, kernel_name=excluded.kernel_name, since=excluded.since"
)
_KERNEL_COLUMNS = (
    "kernel_id, kernel_name, phase, machine, connection_file, connection, launch, provisioner, "
    "process, intent, execution_state, last_activity, started_at, adoptions"
)
_UPSERT_KERNEL = (
    f"INSERT INTO kernel ({_KERNEL_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?) "
    "ON CONFLICT (kernel_id) DO UPDATE SET "
    + ", ".join(f"{c}=excluded.{c}" for c in _KERNEL_COLUMNS.split(", ")[1:])
)
_UPSERT_SERVER = (
    "INSERT OR REPLACE INTO server (server_id, process, hostname, started_at, stopped_at) "
    "VALUES (?,?,?,?,?)"
)

SELECT_SESSIONS = (
    "SELECT session.session_id, path, name, type, kernel_id, state, reason, kernel_name, "
    "created_at, created_by, since FROM session LEFT JOIN session_detail USING (session_id) "
    "ORDER BY session.rowid"
)
SELECT_KERNELS = f"SELECT {_KERNEL_COLUMNS} FROM kernel ORDER BY rowid"
SELECT_LAST_SEEN = (
    "SELECT max(time) FROM (SELECT max(time) AS time FROM event UNION ALL "
    "SELECT max(started_at) FROM server UNION ALL SELECT max(stopped_at) FROM server UNION ALL "
    "SELECT max(last_activity) FROM kernel)"
)
FORGET_OLD_SERVERS = (
    "DELETE FROM server WHERE server_id NOT IN "
    "(SELECT server_id FROM server ORDER BY started_at DESC LIMIT 100)"
)


def read_session(row: Mapping[str, Any]) -> SessionRecord:
    """Make a record of a row; one that stock wrote has no detail and counts as live."""
    return SessionRecord(
        session_id=row["session_id"],
        path=row["path"],
        name=row["name"],
        type=row["type"],
        kernel_id=row["kernel_id"],
        state=SessionState(row["state"] or SessionState.LIVE.value),
        reason=row["reason"] or "",
        kernel_name=row["kernel_name"],
        created_at=_read_time(row["created_at"]),
        created_by=row["created_by"] or SYSTEM,
        since=_read_time(row["since"]),
    )


def _read_time(text: str | None) -> datetime:
    return datetime.fromisoformat(text) if text else now()


def read_kernel(row: Mapping[str, Any]) -> KernelRecord:
    """Make a record of a row."""
    process, intent = from_json(row["process"]), from_json(row["intent"])
    return KernelRecord(
        kernel_id=row["kernel_id"],
        kernel_name=row["kernel_name"],
        phase=KernelPhase(row["phase"]),
        machine=row["machine"],
        connection_file=row["connection_file"],
        connection=from_json(row["connection"]),
        launch=from_json(row["launch"]),
        provisioner=from_json(row["provisioner"]),
        process=ProcessIdentity(**process) if process else None,
        intent=_read_intent(intent) if intent else None,
        execution_state=row["execution_state"],
        last_activity=datetime.fromisoformat(row["last_activity"]),
        started_at=datetime.fromisoformat(row["started_at"]),
        adoptions=row["adoptions"],
    )


def _detail_row(session: SessionRecord) -> tuple[Any, ...]:
    return (
        session.session_id,
        session.state.value,
        session.reason,
        session.kernel_name,
        session.created_at.isoformat(),
        session.created_by,
        session.since.isoformat(),
    )


def _kernel_row(kernel: KernelRecord) -> tuple[Any, ...]:
    return (
        kernel.kernel_id,
        kernel.kernel_name,
        kernel.phase.value,
        kernel.machine,
        kernel.connection_file,
        to_json(kernel.connection),
        to_json(kernel.launch),
        to_json(kernel.provisioner),
        to_json(asdict(kernel.process)) if kernel.process else None,
        to_json(asdict(kernel.intent)) if kernel.intent else None,
        kernel.execution_state,
        kernel.last_activity.isoformat(),
        kernel.started_at.isoformat(),
        kernel.adoptions,
    )


def _server_row(server: ServerRecord) -> tuple[Any, ...]:
    return (
        server.server_id,
        to_json(asdict(server.process)),
        server.hostname,
        server.started_at.isoformat(),
        server.stopped_at.isoformat() if server.stopped_at else None,
    )


def _read_intent(value: dict[str, Any]) -> SessionRecord:
    return SessionRecord(
        **{
            **value,
            "state": SessionState(value["state"]),
            "created_at": _read_time(value["created_at"]),
            "since": _read_time(value.get("since")),
        }
    )


def _json_default(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"__bytes__": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def _json_object(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["__bytes__"]) if set(value) == {"__bytes__"} else value
