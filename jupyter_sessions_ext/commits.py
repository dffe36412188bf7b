"""The registry, and the one way to change it: committed first, shown then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from jupyter_server.base.call_context import CallContext

from . import metrics
from .errors import IllegalTransitionError, StoreUnavailableError, ValueRefusedError
from .models import SYSTEM, TRANSITIONS, Change, Event, Snapshot, merged
from .registry import Registry
from .storage.store import Store
from .tasks import Tasks

Build = Callable[[Registry], Change]
"""Makes a change of the records as they are when it is its turn. It may be called again."""

MOST_AT_ONCE = 100
"""Changes that share a transaction."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A change that is to be made, and who waits for it."""

    build: Build
    user: str
    done: asyncio.Future[Change]


class Commits:
    """Records in memory and in a store, and the changes of both.

    A change is committed first and shown in :attr:`registry` then, or neither. Those that are
    asked for while another is being committed are committed together, in one transaction, each
    made of what the one before leaves.
    """

    def __init__(self, log: logging.Logger | Any, store: Store) -> None:
        self.log = log
        self.store = store
        self.registry = Registry()
        """What is committed."""
        self.last_seen: datetime | None = None
        """The latest time that the store had a record of when it was opened."""
        self.unusable: StoreUnavailableError | None = None
        """Why nothing can be kept although it should be: every change is refused with it."""
        self.emit: Callable[[Event], object] = lambda event: None
        """Told of each event that is committed."""
        self._ahead = Registry()
        """What will be shown when that is committed which is being committed."""
        self._waiting: list[_Waiting] = []
        self._is_committing = False
        self._is_failing = False
        self._tasks = Tasks()

    def load(self, snapshot: Snapshot) -> None:
        """Show what a store held when it was opened, and nothing else."""
        self.registry, self._ahead = Registry(), Registry()
        self.last_seen = snapshot.last_seen
        self._show(Change(sessions=snapshot.sessions, kernels=snapshot.kernels))

    async def transact(self, build: Build, user: str | None = None) -> Change:
        """Commit what ``build`` makes of the records as they then are, and show it.

        It is finished even when the caller is cancelled.

        :param user: who does it; by default the user of the request that is being served
        :raises StoreUnavailableError: nothing was changed
        :raises ValueRefusedError: it holds what cannot be stored; nothing was changed
        """
        self.refuse_unusable()
        waiting = _Waiting(build, user or acting_user(), asyncio.Future())
        waiting.done.add_done_callback(_seen)
        self._waiting.append(waiting)
        if not self._is_committing:
            self._is_committing = True
            self._tasks.spawn(self._commit_waiting())
        return await asyncio.shield(waiting.done)

    def refuse_unusable(self) -> None:
        """Refuse a change where nothing can be kept although it should be.

        :raises StoreUnavailableError: so it is
        """
        if self.unusable is not None:
            raise self.unusable

    async def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                group = self._waiting[:MOST_AT_ONCE]
                del self._waiting[:MOST_AT_ONCE]
                await self._commit(group)
        finally:
            self._is_committing = False

    async def _commit(self, group: list[_Waiting]) -> None:
        built = [(one, change) for one in group if (change := self._build(one)) is not None]
        together = merged(change for _, change in built)
        try:
            if together:
                with metrics.commit():
                    await self.store.commit(together)
                self._is_failing = False
        except BaseException as error:
            self._ahead = self.registry.copy()
            if isinstance(error, ValueRefusedError) and len(built) > 1:
                for one, _ in built:  # one of them is to blame, and no other
                    await self._commit([one])
                return
            if isinstance(error, StoreUnavailableError):
                self.report(error)
            for one, _ in built:
                _refuse(one, error)
            if not isinstance(error, Exception):
                raise
        else:
            for one, change in built:
                self.registry.apply(change)
                self._tell(change)
                if not one.done.done():
                    one.done.set_result(change)

    def _build(self, one: _Waiting) -> Change | None:
        try:
            change = one.build(self._ahead)
            _check_transitions(self._ahead, change)
        except Exception as error:
            _refuse(one, error)
            return None
        change = replace(change, events=tuple(replace(e, user=one.user) for e in change.events))
        self._ahead.apply(change)
        return change

    def commit_now(self, change: Change) -> None:
        """Commit a change before the loop runs; one that cannot be kept is shown all the same."""
        try:
            with metrics.commit():
                self.store.commit_now(change)
        except StoreUnavailableError as error:
            self.report(error)
        self._show(change)
        self._tell(change)

    def _show(self, change: Change) -> None:
        self._ahead.apply(change)
        self.registry.apply(change)

    def _tell(self, change: Change) -> None:
        try:
            for event in change.events:
                self.emit(event)
        except Exception:  # whatever listens: the change is made
            self.log.exception("The event of a change could not be emitted")

    def report(self, error: StoreUnavailableError) -> None:
        """Log the first of a row of failures."""
        if not self._is_failing:
            self.log.error("%s. Until then changes are refused with status 503.", error)
        self._is_failing = True

    def note(self, build: Build, user: str | None = None) -> None:
        """Commit a change soon that nobody waits for; a failure is logged by :meth:`transact`."""
        with contextlib.suppress(RuntimeError):  # no loop: there is nobody to serve either
            asyncio.get_running_loop()
            self._tasks.spawn(self._noted(build, user))

    async def _noted(self, build: Build, user: str | None) -> None:
        try:
            await self.transact(build, user)
        except StoreUnavailableError:
            pass  # it is logged
        except Exception:
            self.log.exception("A change was lost.")

    async def settled(self) -> None:
        """Wait until everything that was noted so far is committed, or refused."""
        await self._tasks.settled()


def acting_user() -> str:
    """Return the name of the user whose request is being served, or ``"system"``."""
    handler = CallContext.get(CallContext.JUPYTER_HANDLER)
    user = getattr(handler, "current_user", None)
    return str(getattr(user, "username", None) or SYSTEM)


def _check_transitions(before: Registry, change: Change) -> None:
    """Refuse a change whose events do not tell what becomes of their sessions.

    :raises IllegalTransitionError: so it is, which is a fault of ours
    """
    after = {s.session_id: s.state for s in change.sessions}
    for event in change.events:
        legal = TRANSITIONS.get(event.action)
        if legal is not None and event.session_id is not None:
            known = before.sessions.get(event.session_id)
            made = (known.state if known else None, after.get(event.session_id))
            if made not in legal:
                raise IllegalTransitionError(event.session_id, event.action.value, *made)


def _refuse(one: _Waiting, error: BaseException) -> None:
    if one.done.done():
        return
    if isinstance(error, Exception):
        one.done.set_exception(error)
    else:
        one.done.cancel()


def _seen(done: asyncio.Future[Change]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not done.cancelled():
        done.exception()
