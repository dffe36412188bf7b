"""What a session manager answers, from memory."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.services.sessions.sessionmanager import (
    ModelName,
)
from jupyter_server.services.sessions.sessionmanager import SessionManager as StockSessionManager
from tornado import web
from traitlets import default

from ..errors import SchemaTooNewError, StoreUnavailableError
from ..kernels.recovery import recover
from ..models import Change, SessionRecord, SessionState
from ..registry import Registry
from ..storage.sqlite import MEMORY, SQLiteStore
from ..tasks import Tasks
from ..workspace import Workspace
from . import changes

Model = dict[str, Any]


class SessionNotFoundError(web.HTTPError):
    """No session has these column values; status 404."""

    def __init__(self, **wanted: Any) -> None:
        columns = ", ".join(f"{key}={value!r}" for key, value in wanted.items())
        super().__init__(404, f"Session not found: {columns}")


def session_model(row: Mapping[str, Any] | sqlite3.Row, kernel: Any) -> Model:
    """Return the model of a row, as jupyter_server's clients know it."""
    model: Model = {
        "id": row["session_id"],
        "path": row["path"],
        "name": row["name"],
        "type": row["type"],
        "kernel": kernel,
    }
    if row["type"] == "notebook":
        model["notebook"] = {"path": row["path"], "name": row["name"]}  # deprecated, still read
    return model


@dataclass(slots=True)
class Creating:
    """A session that is being created, or revived."""

    record: SessionRecord
    done: asyncio.Future[None] = field(default_factory=asyncio.Future)


class SessionReader(StockSessionManager):
    """The reading half of :class:`~.manager.SessionManager`: models of the registry's sessions."""

    workspace: Workspace | None = None
    """Set on the class by :class:`~jupyter_sessions_ext.app.SessionsApp`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._creating: dict[str, Creating] = {}
        self._tasks = Tasks()
        self._alone = self.workspace is None
        self._loading: asyncio.Future[Any] | None = None
        self._loaded = not self._alone or self.database_filepath == MEMORY
        if self.workspace is None:
            self._workspace = Workspace(self.log, store=SQLiteStore(self.database_filepath))
        else:
            self._workspace = self.workspace
            self._workspace.open(self.parent.root_dir)  # type: ignore[union-attr]
            if self._workspace.place is not None and not self._workspace.recovered:
                recover(self._workspace, None)
                self._workspace.finish_merge()
            self._name_adopted()

    def _name_adopted(self) -> None:
        """Have adopted kernels told their session's present name when they are restarted."""
        for session in self._workspace.registry.live():
            if session.kernel_id in self.kernel_manager:
                try:
                    self._tell_kernel(session, only="JPY_SESSION_NAME")
                except Exception:  # whatever a row holds: the server must start
                    self.log.exception("Kernel %s is not told its session", session.kernel_id)

    def _tell_kernel(self, session: SessionRecord, only: str = "") -> None:
        """Update the environment in which a session's kernel would be restarted."""
        if hasattr(self.kernel_manager, "update_env") and session.kernel_id and session.path:
            env = self.get_kernel_env(session.path, session.name)  # type: ignore[arg-type]
            if only:
                env = {only: env[only]}
            self.kernel_manager.update_env(kernel_id=session.kernel_id, env=env)

    @default("database_filepath")
    def _default_database_filepath(self) -> str:
        place = self.workspace.place if self.workspace else None
        return place.database if place else MEMORY

    async def _load(self) -> None:
        """Read an explicit database on first use; under the extension it was read at start."""
        if not self._loaded:
            if self._loading is None:
                self._loading = asyncio.ensure_future(self._load_now())
            await asyncio.shield(self._loading)

    async def _load_now(self) -> None:
        try:
            snapshot = await asyncio.to_thread(self._workspace.store.open)
            self._workspace.load(snapshot)
            self._loaded = True
        except (StoreUnavailableError, SchemaTooNewError) as error:
            raise web.HTTPError(503, str(error)) from error
        finally:
            self._loading = None

    # ------------------------------------------------------------------ the database

    @property
    def connection(self) -> Awaitable[Any]:
        """The asynchronous connection: ``connection = await manager.connection``.

        What changed from jupyter_server's: it is an :class:`aiosqlite.Connection`, it must be
        awaited, its rows are :class:`sqlite3.Row`, and a write made through it is durable but not
        seen by this manager, which reads from memory.
        """
        return self._connect()

    async def _connect(self) -> Any:
        await self._load()
        return await self._workspace.store.connection()

    @property
    def cursor(self) -> Awaitable[Any]:
        """A new asynchronous cursor: ``cursor = await manager.cursor``; see :attr:`connection`.

        Table ``session`` has jupyter_server's five columns; dormant sessions are in it too.
        """
        return self._new_cursor()

    async def _new_cursor(self) -> Any:
        return await (await self._connect()).cursor()

    def row_factory(self, cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Model:
        """Turn a row of table ``session`` into its model, as IPython's did.

        For use as a connection's ``row_factory``. It does not wait: where the kernel manager
        answers asynchronously, use :meth:`row_to_model`.

        :raises tornado.web.HTTPError: 404, its kernel is gone
        """
        columns = sqlite3.Row(cursor, row)
        return session_model(columns, self.kernel_manager.kernel_model(columns["kernel_id"]))

    def close(self) -> None:
        """Close the store and free the lease. Safe to call twice."""
        workspace = getattr(self, "_workspace", None)
        if workspace is not None:
            workspace.close()

    # ------------------------------------------------------------------ reading

    async def session_exists(
        self,
        path: str | None = None,
        name: ModelName | None = None,
        type: str | None = None,
    ) -> bool:
        """Tell whether a session has this path (and name, and type, where given).

        One that is being created is waited for: whoever asks before creating makes no second one.

        :raises TypeError: nothing to look for was given
        """
        wanted = {
            key: value
            for key, value in {"path": path, "name": name, "type": type}.items()
            if value is not None
        }
        if not wanted:
            msg = "must specify a path, a name or a type"
            raise TypeError(msg)
        await self._load()
        asked: list[SessionRecord] = []
        while True:
            matching = [r for r in self._matching(wanted) if r not in asked]
            asked += matching
            for record in matching:
                if await self.row_to_model(record.row(), tolerate_culled=True) is not None:
                    return True
            if matching:
                continue  # another may have been made while a kernel manager was asked
            making = [
                creating.done
                for creating in self._creating.values()
                if wanted.items() <= creating.record.row().items()
            ]
            if not making:
                return False
            await asyncio.wait(making[:1])

    async def get_session(self, **kwargs: Any) -> Model:
        """Return the model of the first session with the given column values.

        :raises TypeError: no column was given, or one that is not a column
        :raises tornado.web.HTTPError: 404, there is none, or its kernel is gone
        """
        if not kwargs:
            msg = "must specify a column to query"
            raise TypeError(msg)
        self._check_columns(kwargs)
        await self._load()
        for record in list(self._matching(kwargs)):
            model = await self.row_to_model(record.row(), tolerate_culled=True)
            if model is not None:
                return model
        raise SessionNotFoundError(**kwargs)

    async def list_sessions(self) -> list[Model]:
        """Return the models of all live sessions, in the order of their creation: one snapshot."""
        await self._load()
        rows = [record.row() for record in self._workspace.registry.live()]
        if self._asks_without_waiting():
            gone = [row for row in rows if row["kernel_id"] not in self.kernel_manager]
        else:
            culled = await asyncio.gather(*(self.kernel_culled(row["kernel_id"]) for row in rows))
            gone = [row for row, is_culled in zip(rows, culled, strict=True) if is_culled]
        if gone:
            await self._drop(gone)
            ids = {row["session_id"] for row in gone}
            rows = [row for row in rows if row["session_id"] not in ids]
        if self._asks_without_waiting():
            models = [await self.row_to_model(row, tolerate_culled=True) for row in rows]
        else:
            models = await asyncio.gather(
                *(self.row_to_model(row, tolerate_culled=True) for row in rows)
            )
        return [model for model in models if model is not None]

    async def row_to_model(
        self, row: Mapping[str, Any] | sqlite3.Row, tolerate_culled: bool = False
    ) -> Model | None:
        """Return the model of a row, or ``None`` where its kernel is gone and that is tolerated.

        :raises KeyError: its kernel is gone
        """
        if await self.kernel_culled(row["kernel_id"]):
            await self._drop([row])
            msg = (
                f"Kernel '{row['kernel_id']}' appears to have been culled or died unexpectedly, "
                f"invalidating session '{row['session_id']}'."
            )
            if tolerate_culled:
                return None
            raise KeyError(msg)
        kernel = await ensure_async(self.kernel_manager.kernel_model(row["kernel_id"]))
        return session_model(row, kernel)

    def _asks_without_waiting(self) -> bool:
        """Whether the kernel manager's answers are at hand, as all but a gateway's are."""
        return type(self).kernel_culled is StockSessionManager.kernel_culled

    def _matching(self, wanted: Mapping[str, Any]) -> Iterator[SessionRecord]:
        """Yield the live sessions with these column values, in the order of their creation.

        As in SQL, nothing equals ``None``.
        """
        registry = self._workspace.registry
        if "session_id" in wanted:
            found = registry.sessions.get(wanted["session_id"])
            records = iter([found] if found else [])
        elif wanted.get("path") is not None:
            records = registry.at_path(wanted["path"], SessionState.LIVE)
        else:
            records = iter(registry.live())
        return (
            record
            for record in records
            if record.state is SessionState.LIVE
            and None not in wanted.values()
            and wanted.items() <= record.row().items()
        )

    def _check_columns(self, columns: Mapping[str, Any]) -> None:
        for column in columns:
            if column not in self._columns:
                msg = f"No such column: {column}"
                raise TypeError(msg)

    async def _drop(self, rows: list[Any]) -> None:
        """Forget sessions whose kernel is gone; under the extension they are only not shown."""
        if self._alone:
            kernels = {row["session_id"]: row["kernel_id"] for row in rows}
            self.log.warning("%d sessions lost their kernel and are removed.", len(kernels))

            def build(records: Registry) -> Change:
                still = [
                    session
                    for session_id, kernel_id in kernels.items()
                    if (session := records.sessions.get(session_id))
                    and session.kernel_id == kernel_id
                ]
                return changes.forgotten(still, "kernel gone")

            with contextlib.suppress(StoreUnavailableError):  # it is logged; reads go on
                await self._workspace.transact(build)
