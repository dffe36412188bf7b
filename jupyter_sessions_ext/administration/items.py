"""Sessions and kernels with all that is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
from jupyter_core.utils import ensure_async
from jupyter_server.utils import url_escape, url_path_join
from msgspec import UNSET, Raw
from tornado import web

from ..host import identify
from ..kernels.usage import Usage, UsageMeter
from ..models import ProcessIdentity, SessionRecord, SessionState
from ..wire import NamedDocument
from ..workspace import Workspace
from .catalog import Kernels, Values
from .schemas import KernelItem, Process, SessionItem

KERNEL_GONE = "its kernel is gone"


_Kernel = tuple[dict[str, Any], datetime | None]
"""A kernel's model, and when it was last active."""


class Items:
    """Makes items of records, of the kernels that run, and of what they use.

    :param kernel_manager: the server's, of whichever class
    :param base_url: the server's, for links
    """

    def __init__(self, workspace: Workspace, kernel_manager: Any, base_url: str) -> None:
        self._workspace = workspace
        self._kernel_manager = kernel_manager
        self._meter = UsageMeter()
        self._texts: dict[str, tuple[SessionRecord, object, Raw]] = {}
        """Items as JSON by session, and what each was made of."""
        self._root = url_path_join(base_url, "sessions/api/v1")
        self._kernels = url_path_join(base_url, "api/kernels")

    async def kernels(self) -> Kernels:
        """Return what the kernels are, do and use at the moment."""
        running = tuple(self._kernel_manager.list_kernel_ids())
        processes = {k: p for k in running if (p := self._process(k)) is not None}
        usage = await self._meter.measure(processes)
        return Kernels(running, self._activity, usage)

    def _process(self, kernel_id: str) -> ProcessIdentity | None:
        """Return a kernel's process on this host, if it has one."""
        record = self._workspace.registry.kernels.get(kernel_id)
        if record is not None:
            return None if record.is_elsewhere else record.process
        # One that ends with the server has no record.
        provisioner = getattr(self._manager_of(kernel_id), "provisioner", None)
        process = getattr(provisioner, "process", None)
        return identify(process.pid) if process is not None else None

    def _manager_of(self, kernel_id: str) -> Any:
        return self._kernel_manager.get_kernel(kernel_id)

    def _activity(self) -> Values:
        return {
            kernel_id: time.timestamp()
            for kernel_id in self._kernel_manager.list_kernel_ids()
            if (time := self._last_activity(kernel_id)) is not None
        }

    def _last_activity(self, kernel_id: str) -> datetime | None:
        return getattr(self._manager_of(kernel_id), "last_activity", None)

    async def sessions(self, sessions: Sequence[SessionRecord], kernels: Kernels) -> list[Raw]:
        """Return sessions' items as JSON; those are kept of which nothing has changed."""
        if len(self._texts) > 2 * len(self._workspace.registry.sessions) + 1000:
            self._texts = {}
        models: dict[str, _Kernel] = {}
        for kernel_id in {s.kernel_id for s in sessions if s.kernel_id in self._kernel_manager}:
            with suppress(web.HTTPError, KeyError):  # it has just ended
                model = await ensure_async(self._kernel_manager.kernel_model(kernel_id))
                models[str(kernel_id)] = (model, self._last_activity(str(kernel_id)))
        return [self._text(session, kernels, models) for session in sessions]

    def _text(self, session: SessionRecord, kernels: Kernels, models: Mapping[str, _Kernel]) -> Raw:
        kernel_id = session.kernel_id or ""
        record = self._workspace.registry.kernels.get(kernel_id)
        made_of = (
            kernels.usage.get(kernel_id),
            record.adoptions if record else 0,
            models.get(kernel_id),
        )
        known = self._texts.get(session.session_id)
        if known is None or known[0] is not session or known[1] != made_of:
            text = Raw(msgspec.json.encode(self._session(session, *made_of)))
            known = self._texts[session.session_id] = (session, made_of, text)
        return known[2]

    def _session(
        self, session: SessionRecord, usage: Usage | None, adoptions: int, kernel: _Kernel | None
    ) -> SessionItem:
        """Return a session's item; one whose kernel is gone is dormant."""
        is_live = session.state is SessionState.LIVE and kernel is not None
        model, last_activity = kernel if is_live and kernel is not None else (None, None)
        reason = session.reason
        if session.state is SessionState.LIVE and not is_live:
            reason = KERNEL_GONE
        document: Any = UNSET
        if session.type == "notebook":
            document = NamedDocument(path=session.path or "", name=session.name)
        return SessionItem(
            id=session.session_id,
            path=session.path,
            name=session.name,
            type=session.type,
            kernel=model,  # type: ignore[arg-type]
            notebook=document,
            state=SessionState.LIVE if is_live else SessionState.DORMANT,
            reason=reason,
            created_at=session.created_at,
            created_by=session.created_by,
            since=session.since,
            last_activity=last_activity or session.since,
            kernel_name=session.kernel_name,
            adoptions=adoptions if is_live else 0,
            connections=model.get("connections", 0) if model else 0,
            process=_process_item(usage) if is_live else None,
            links=self._session_links(session, is_live),
        )

    def _session_links(self, session: SessionRecord, is_live: bool) -> dict[str, str]:
        escaped = url_escape(session.session_id)
        this = url_path_join(self._root, "sessions", escaped)
        links = {
            "self": this,
            "history": f"{url_path_join(self._root, 'events')}?session={escaped}",
            "log": url_path_join(this, "log"),
            "transcript": url_path_join(this, "transcript"),
        }
        if is_live:
            links["kernel"] = url_path_join(self._kernels, url_escape(session.kernel_id or ""))
        return links

    async def kernel(self, kernel_id: str, kernels: Kernels) -> KernelItem:
        """Return a running kernel's item.

        :raises tornado.web.HTTPError: 404, it does not run
        """
        model = await ensure_async(self._kernel_manager.kernel_model(kernel_id))
        record = self._workspace.registry.kernels.get(kernel_id)
        return KernelItem(
            id=kernel_id,
            name=model["name"],
            last_activity=model["last_activity"],
            execution_state=model["execution_state"],
            connections=model["connections"],
            reason=model.get("reason", UNSET),
            started_at=record.started_at if record else None,
            adoptions=record.adoptions if record else 0,
            process=_process_item(kernels.usage.get(kernel_id)),
            sessions=[s.session_id for s in self._workspace.registry.of_kernel(kernel_id)],
            links={"self": url_path_join(self._kernels, url_escape(kernel_id))},
        )


def _process_item(usage: Usage | None) -> Process | None:
    if usage is None:
        return None
    return Process(pid=usage.pid, cpu_percent=usage.cpu_percent, memory_bytes=usage.memory_bytes)


def version_of(session: SessionRecord) -> str:
    """Return what changes whenever that changes which can be changed of a session, or its state."""
    return digest(
        msgspec.json.encode([*session.row().values(), session.state.value, session.since])
    )


def digest(text: bytes) -> str:
    """Return a short digest of a text, for an ETag."""
    return hashlib.blake2b(text, digest_size=10).hexdigest()
