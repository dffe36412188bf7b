"""What ``/sessions/api/v1`` takes and answers, as structs: they validate it and describe it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from ..models import EventAction, SessionState
from ..wire import (
    TEXT,
    InvalidBodyError,
    Kernel,
    KernelId,
    KernelName,
    Name,
    NamedDocument,
    Path,
    Type,
    check_path,
)

MOST_STARS = 100
"""Of a pattern, at most."""

Text = Annotated[str, Meta(max_length=4096, pattern=TEXT)]
Seconds = Annotated[float, Meta(ge=0, le=1e10)]
Limit = Annotated[int, Meta(ge=1, le=1000, description="Items on a page.")]
Cursor = Annotated[
    str,
    Meta(
        max_length=49152,  # a path and an id, of 4096 characters of four bytes each, in base64
        description="The page to be answered: `next` of the one before.",
        extra_json_schema={"pattern": "^[A-Za-z0-9_-]*$"},
    ),
]
Time = Annotated[datetime, Meta(tz=True)]
TimeText = Annotated[str, Meta(max_length=64, extra_json_schema={"format": "date-time"})]

Sort = Literal[
    "path", "created_at", "last_activity", "cpu", "memory",
    "-path", "-created_at", "-last_activity", "-cpu", "-memory",
]  # fmt: skip
Action = Literal["delete", "forget", "interrupt", "restart", "revive"]

# ---------------------------------------------------------------------- parameters


class Filter(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which sessions are meant: those that all of it lets through."""

    state: SessionState | None = None
    type: Annotated[Type | None, Meta(description="The session's type.")] = None
    kernel_name: Annotated[KernelName | None, Meta(description="A kernelspec's name.")] = None
    path: Annotated[
        Text | None, Meta(description="A pattern of the whole path, with `*`, `?` and `[...]`.")
    ] = None
    q: Annotated[Text | None, Meta(description="A text in whatever identifies a session.")] = None
    idle_longer_than: Annotated[
        Seconds | None, Meta(description="Seconds since the last activity, at least.")
    ] = None

    def __post_init__(self) -> None:
        # Each takes time to compile.
        if self.path is not None and re.sub(r"\*+", "*", self.path).count("*") > MOST_STARS:
            raise InvalidBodyError(f"path: a pattern has {MOST_STARS} of * at most")

    def lets_all_through(self) -> bool:
        """Tell whether there is no session that it could keep back."""
        return (
            self.state is None
            and self.type is None
            and self.kernel_name is None
            and not self.q
            and not self.idle_longer_than
            and (self.path is None or (self.path != "" and not self.path.strip("*")))
        )


class SessionsQuery(Filter, kw_only=True):
    """A page of the list of sessions."""

    sort: Annotated[Sort, Meta(description="Downwards with a `-`.")] = "created_at"
    limit: Limit = 100
    cursor: Cursor | None = None


class KernelsQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """A page of the list of kernels."""

    limit: Limit = 100
    cursor: Cursor | None = None


class EventsQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """A page of the history."""

    session: Annotated[Text | None, Meta(description="A session's id.")] = None
    action: EventAction | None = None
    user: Annotated[Text | None, Meta(description="A user's name, or `system`.")] = None
    since: Annotated[TimeText | None, Meta(description="Not before this time.")] = None
    until: Annotated[TimeText | None, Meta(description="Before this time.")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


class LogQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """How much of a log is read."""

    bytes: Annotated[int, Meta(ge=1, le=1 << 20, description="How much of its end is read.")] = (
        65536
    )


class TranscriptQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which part of a transcript is read, and how it is sent."""

    format: Annotated[
        Literal["json", "ipynb"], Meta(description="`ipynb`: as a file to be downloaded.")
    ] = "json"
    since: Annotated[
        TimeText | None, Meta(description="Only cells that were run at this time or after it.")
    ] = None


class DeleteQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """How a session is deleted."""

    keep_kernel: Annotated[bool, Meta(description="Let its kernel run on.")] = False


class NoQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """No parameters."""


# ---------------------------------------------------------------------- requests


class KernelChange(Struct, forbid_unknown_fields=True, kw_only=True):
    """The kernel to be given to a session: one that runs, or a new one of this name."""

    id: KernelId | UnsetType = UNSET
    name: KernelName | UnsetType = UNSET

    def __post_init__(self) -> None:
        if (self.id is UNSET) is (self.name is UNSET) or "" in (self.id, self.name):
            raise InvalidBodyError("kernel: needs either an id or a name")


class SessionChange(Struct, forbid_unknown_fields=True, kw_only=True):
    """What is to be changed of a session."""

    path: Path | UnsetType = UNSET
    name: Name | UnsetType | None = UNSET
    type: Type | UnsetType = UNSET
    kernel: KernelChange | UnsetType = UNSET

    def __post_init__(self) -> None:
        check_path(self.path)

    @property
    def kernel_id(self) -> str | None:
        """The running kernel that it is to have."""
        return (self.kernel and self.kernel.id) or None

    @property
    def kernel_name(self) -> str | None:
        """The kernelspec of the new kernel that it is to have."""
        return (self.kernel and self.kernel.name) or None

    def columns(self) -> dict[str, str | None]:
        """Return the columns that are to be changed."""
        columns = {"path": self.path, "name": self.name, "type": self.type}
        values = {k: v for k, v in columns.items() if not isinstance(v, UnsetType)}
        return values if self.kernel_id is None else {**values, "kernel_id": self.kernel_id}


class BulkAction(Struct, forbid_unknown_fields=True, kw_only=True):
    """One action on many sessions: on these ids, or on all that a filter lets through."""

    action: Action
    ids: Annotated[list[Text], Meta(min_length=1, max_length=10_000)] | UnsetType = UNSET
    filter: Filter | UnsetType = UNSET
    all: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.ids is not UNSET and (self.filter is not UNSET or self.all):
            raise InvalidBodyError("ids: goes neither with a filter nor with all")
        chosen = Filter() if self.filter is UNSET else self.filter
        if self.ids is UNSET and not self.all and chosen.lets_all_through():
            raise InvalidBodyError("all: must be true where every session is meant")

    def answered(self, results: list[ActionResult]) -> ActionResults:
        """Return the answer."""
        succeeded = sum(result.status < 300 for result in results)
        return ActionResults(
            action=self.action,
            dry_run=self.dry_run,
            total=len(results),
            succeeded=succeeded,
            failed=len(results) - succeeded,
            results=results,
        )


class Attachment(Struct, forbid_unknown_fields=True, kw_only=True):
    """The session that a kernel is to have."""

    path: Path
    type: Type = "notebook"
    name: Name | None = None

    def __post_init__(self) -> None:
        check_path(self.path)


# ---------------------------------------------------------------------- answers


class Process(Struct, kw_only=True):
    """A kernel's process on this host, with its child processes."""

    pid: int
    cpu_percent: Annotated[float, Meta(ge=0, description="Of one CPU.")]
    memory_bytes: Annotated[int, Meta(ge=0, description="Resident.")]


class SessionItem(Struct, kw_only=True):
    """A session, live or dormant, with all that is known of it."""

    id: str
    path: str | None
    name: str | None
    type: str | None
    kernel: Kernel | None
    notebook: NamedDocument | UnsetType = UNSET
    state: SessionState
    reason: str
    created_at: datetime
    created_by: str
    since: datetime
    last_activity: datetime
    kernel_name: str | None
    adoptions: int
    connections: int
    process: Process | None
    links: dict[str, str]


class KernelItem(Struct, kw_only=True):
    """A kernel that runs."""

    id: str
    name: str
    last_activity: datetime
    execution_state: str | None
    connections: int
    reason: str | UnsetType = UNSET
    started_at: datetime | None
    adoptions: int
    process: Process | None
    sessions: list[str]
    links: dict[str, str]


class EventItem(Struct, kw_only=True):
    """A line of the history."""

    id: int
    time: datetime
    action: EventAction
    session_id: str | None
    kernel_id: str | None
    detail: str
    user: str


class Notebook(Struct, kw_only=True):
    """A notebook of nbformat 4.5."""

    cells: list[dict[str, Any]]
    metadata: dict[str, Any]
    nbformat: int = 4
    nbformat_minor: int = 5


class SessionsPage(Struct, kw_only=True):
    """A page of the list of sessions."""

    items: list[SessionItem]
    next: str | None
    total: int


class KernelsPage(Struct, kw_only=True):
    """A page of the list of kernels."""

    items: list[KernelItem]
    next: str | None
    total: int


class EventsPage(Struct, kw_only=True):
    """A page of the history."""

    items: list[EventItem]
    next: str | None
    total: int


class ActionResult(Struct, kw_only=True):
    """What became of one session, or would."""

    id: str
    path: str | None
    status: Annotated[int, Meta(description="The status of the request for it alone.")]
    message: str = ""


class ActionResults(Struct, kw_only=True):
    """What became of all."""

    action: Action
    dry_run: bool
    total: int
    succeeded: int
    failed: int
    results: list[ActionResult]


class Imported(Struct, kw_only=True):
    """What came in, and what was there already."""

    sessions: int
    events: int
    known_sessions: int
    known_events: int


class WorkspaceInfo(Struct, kw_only=True):
    """Whose sessions these are. All is null where nothing is kept."""

    key: str | None
    root_dir: str
    folder: str | None


class StoreInfo(Struct, kw_only=True):
    """Where they are kept."""

    backend: str
    location: str


class ServerInfo(Struct, kw_only=True):
    """The server, and what it keeps."""

    version: str
    workspace: WorkspaceInfo
    store: StoreInfo
    schema: int
    started_at: datetime
    uptime: Annotated[float, Meta(ge=0, description="Seconds.")]


class Health(Struct, kw_only=True, omit_defaults=True):
    """Whether changes can be stored."""

    status: Literal["ok", "unavailable"]
    reason: str = ""


ANSWERS: tuple[Any, ...] = (
    SessionItem, SessionsPage, KernelsPage, EventsPage, ActionResults, Imported, ServerInfo, Health,
)  # fmt: skip
