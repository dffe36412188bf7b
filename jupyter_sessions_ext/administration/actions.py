"""What is done to sessions: each verb for one of them, and the same for many at once."""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel
from jupyter_core.utils import ensure_async
from tornado import web

from .. import metrics
from ..errors import KernelStartError, SessionsError, StoreUnavailableError
from ..models import SessionRecord, SessionState
from ..sessions.changing import condition
from ..sessions.manager import SessionManager
from ..sessions.reading import SessionNotFoundError
from ..workspace import Workspace
from .items import version_of
from .schemas import Action, ActionResult, SessionChange

AT_ONCE = 8
"""Sessions whose kernels are started, restarted or ended at the same time."""

NEEDS_KERNEL = frozenset({"interrupt", "restart"})

STATUS: Mapping[str, int] = {"delete": 204, "forget": 204}
"""What a verb is answered with; 200 where nothing is said."""


class Actions:
    """The verbs of administrators, on a server's session manager."""

    def __init__(self, workspace: Workspace, sessions: SessionManager) -> None:
        self._workspace = workspace
        self._sessions = sessions
        self._kernels: Any = sessions.kernel_manager

    def find(self, session_id: str) -> SessionRecord:
        """Return a session, live or dormant.

        :raises tornado.web.HTTPError: 404, there is none
        """
        session = self._workspace.registry.sessions.get(session_id)
        if session is None:
            raise SessionNotFoundError(session_id=session_id)
        return session

    def is_live(self, session: SessionRecord) -> bool:
        """Tell whether a session has a kernel that runs."""
        return session.state is SessionState.LIVE and session.kernel_id in self._kernels

    # ------------------------------------------------------------------ one session

    async def do(self, action: Action, session_id: str) -> None:
        """Do one of the verbs to one session.

        :raises tornado.web.HTTPError: 404, there is no such session; 409, it cannot be done to it
            as it is; 400, its kernel is not installed; 500, it cannot be started; 503, it cannot
            be stored
        """
        with metrics.operation(action), _explained():
            session = self.find(session_id)
            self._refuse_dormant(action, session)
            if action == "delete":
                await self._delete(session)
            elif action == "forget":
                await self._sessions.forget_sessions([session_id])
            elif action == "revive":
                with _starting(session):
                    await self._sessions.revive_session(session_id)
            elif action == "interrupt":
                await ensure_async(self._kernels.interrupt_kernel(session.kernel_id))
            else:
                with _starting(session):
                    await ensure_async(self._kernels.restart_kernel(session.kernel_id))

    def _refuse_dormant(self, action: Action, session: SessionRecord) -> None:
        if action in NEEDS_KERNEL and not self.is_live(session):
            raise web.HTTPError(
                409, f"Session {session.session_id} is dormant: there is no kernel to {action}"
            )

    async def _delete(self, session: SessionRecord) -> None:
        if self.is_live(session):
            await self._sessions.end_session(session.session_id)
        elif not await self._sessions.forget_sessions([session.session_id], only_dormant=True):
            self.find(session.session_id)
            raise web.HTTPError(409, f"Session {session.session_id} was revived meanwhile")

    @metrics.counted("change")
    async def change(
        self, session_id: str, change: SessionChange, expected: Collection[str] | None
    ) -> None:
        """Change what a session says, and its kernel.

        :param expected: the versions of which it must have one, see :func:`.items.version_of`
        :raises tornado.web.HTTPError: 404, there is no such session; 412, it has another version;
            409, it is dormant and cannot be given a kernel; 400, the kernel cannot be had; 503, it
            cannot be stored; nothing was changed
        """

        def check(session: SessionRecord) -> None:
            if expected is not None and version_of(session) not in expected:
                raise web.HTTPError(
                    412, f"Session {session_id} has changed meanwhile: read it again, then decide"
                )

        session = self.find(session_id)
        check(session)
        token = condition.set(check)
        try:
            with _explained():
                if change.kernel_id is not None and change.kernel_id not in self._kernels:
                    raise web.HTTPError(400, f"kernel.id: no kernel {change.kernel_id} runs")
                if self.is_live(session):
                    name = change.kernel_name if change.kernel_id is None else None
                    await self._sessions.change_session(session_id, change.columns(), name)
                elif change.kernel_id is not None or change.kernel_name is not None:
                    raise web.HTTPError(
                        409,
                        f"Session {session_id} is dormant: revive it before its kernel is changed",
                    )
                else:
                    await self._sessions.change_dormant(session_id, change.columns())
        finally:
            condition.reset(token)

    # ------------------------------------------------------------------ many sessions

    async def do_all(self, action: Action, session_ids: Iterable[str]) -> list[ActionResult]:
        """Do a verb to many sessions; what cannot be done to one is told, and hinders no other.

        What ends no kernel is done in one transaction.

        :raises tornado.web.HTTPError: 503, it cannot be stored
        """
        known = self._workspace.registry.sessions
        wanted = list(dict.fromkeys(session_ids))
        paths = {i: known[i].path for i in wanted if i in known}
        at_once = [
            i
            for i in wanted
            if i in known
            and (action == "forget" or (action == "delete" and not self.is_live(known[i])))
        ]
        outcomes: dict[str, tuple[int, str]] = {}
        if at_once:
            with metrics.operation(action, len(at_once)):
                only_dormant = action == "delete"
                gone = await self._sessions.forget_sessions(at_once, only_dormant=only_dormant)
            outcomes = dict.fromkeys(gone, _outcome(action))
        gate = asyncio.Semaphore(AT_ONCE)

        async def do(session_id: str) -> None:
            async with gate:
                outcomes[session_id] = await self._try(action, session_id)

        await asyncio.gather(*(do(i) for i in wanted if i not in outcomes))
        return [_result(i, paths.get(i), outcomes[i]) for i in wanted]

    async def _try(self, action: Action, session_id: str) -> tuple[int, str]:
        try:
            await self.do(action, session_id)
        except web.HTTPError as error:
            return error.status_code, message_of(error)
        except Exception as error:
            logging.getLogger(__name__).exception("%s of session %s", action, session_id)
            return 500, str(error)
        return _outcome(action)

    def try_all(self, action: Action, session_ids: Iterable[str]) -> list[ActionResult]:
        """Return what :meth:`do_all` would, as far as it can be known, and do nothing."""
        results = []
        for session_id in dict.fromkeys(session_ids):
            session = self._workspace.registry.sessions.get(session_id)
            outcome = _outcome(action)
            if session is None:
                outcome = _not_found(session_id)
            else:
                try:
                    self._refuse_dormant(action, session)
                except web.HTTPError as error:
                    outcome = error.status_code, message_of(error)
            results.append(_result(session_id, session.path if session else None, outcome))
        return results

    # ------------------------------------------------------------------ kernels

    @metrics.counted("attach")
    async def attach(self, kernel_id: str, *, path: str, type: str, name: str | None) -> str:
        """Make a session of a kernel that runs, and return its id.

        :raises tornado.web.HTTPError: 404, it does not run; 409, a session of the path is live;
            503, it cannot be stored
        """
        if kernel_id not in self._kernels:
            raise web.HTTPError(404, f"Kernel does not exist: {kernel_id}")
        if await self._sessions.session_exists(path=path):
            raise web.HTTPError(409, f"path: a session of {path} is live")
        with _explained():
            model = await self._sessions.open_session(
                path=path, name=name, type=type, kernel_id=kernel_id
            )
        if model["kernel"]["id"] != kernel_id:
            raise web.HTTPError(409, f"path: a session of {path} is live")
        return str(model["id"])

    async def end_kernel(self, kernel_id: str) -> None:
        """End a kernel; its sessions are dormant then.

        :raises tornado.web.HTTPError: 404, it does not run
        """
        await ensure_async(self._kernels.shutdown_kernel(kernel_id))


@contextmanager
def _starting(session: SessionRecord) -> Iterator[None]:
    """Tell of a kernel that cannot be started: whatever its class, or the system, raises."""
    try:
        yield
    except (web.HTTPError, NoSuchKernel, SessionsError):
        raise
    except Exception as error:
        raise KernelStartError(session.kernel_name or "", str(error)) from error


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what may be wrong into the answer that it has over REST."""
    try:
        yield
    except NoSuchKernel as error:
        raise _not_installed(error) from error
    except KernelStartError as error:
        if isinstance(error.__cause__, NoSuchKernel):
            raise _not_installed(error.__cause__) from error
        raise web.HTTPError(500, str(error)) from error
    except StoreUnavailableError as error:
        raise web.HTTPError(503, str(error)) from error


def _not_installed(error: NoSuchKernel) -> web.HTTPError:
    return web.HTTPError(400, f"kernel.name: no kernel {error.name!r} is installed")


def message_of(error: web.HTTPError) -> str:
    """Return what is wrong; tornado doubles each ``%``, for its log."""
    message = (error.log_message or "") % error.args
    return message or http.HTTPStatus(error.status_code).phrase


def _outcome(action: Action) -> tuple[int, str]:
    return STATUS.get(action, 200), ""


def _not_found(session_id: str) -> tuple[int, str]:
    error = SessionNotFoundError(session_id=session_id)
    return error.status_code, message_of(error)


def _result(session_id: str, path: str | None, outcome: tuple[int, str]) -> ActionResult:
    status, message = outcome
    return ActionResult(id=session_id, path=path, status=status, message=message)
