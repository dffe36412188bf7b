"""The server's end: what the keeper is told of kernels, the port and clients, and tells."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tornado.ioloop import IOLoop

from ..errors import KeeperError, KeeperGoneError, KeeperVersionError, NoKeeperError
from .backlog import Backlog
from .channel import Feed, ServerLink
from .protocol import CHANNELS, VERSION, Channel, Kind, pack, pack_json
from .starter import Starter

START_TIMEOUT = 20.0
"""Seconds until a keeper that was started must answer."""

CLOSE_TIMEOUT = 2.0
"""Seconds for which a server that stops waits for its keeper's answer."""

PATIENCE = 1.0
"""Seconds for which clients wait for another keeper, if it is tried again by then."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 60.0
"""Seconds until it is tried again to start a keeper; each time it takes twice as long."""

SOON = 60.0
"""Seconds: a keeper that lives for less does not end well."""


class Pauses:
    """Pauses between attempts: none before the first other one, then longer ones."""

    def __init__(self) -> None:
        self._next = 0.0
        self._end = 0.0

    @property
    def left(self) -> float:
        """Seconds that are left of this one."""
        return max(self._end - time.monotonic(), 0)

    def begin(self) -> float:
        """Begin the next one, and return how many seconds it takes."""
        pause, self._next = self._next, min(max(2 * self._next, FIRST_PAUSE), LONGEST_PAUSE)
        self._end = time.monotonic() + pause
        return pause

    def reset(self) -> None:
        """Begin anew: all goes well."""
        self._next = 0.0


class Supervisor:
    """Sees to it that there is a keeper, as long as there are kernels to be kept.

    :param folder: the keeper's
    :param limit: bytes that are kept of each kernel
    :param total: bytes that are kept of all
    :param orphan_timeout: seconds after which kernels are ended that no server comes back for; 0:
        never
    :param idle: is told of a kernel, again and again, that it is idle by what the keeper has heard
    """

    def __init__(
        self,
        folder: Path,
        log: logging.Logger | Any,
        *,
        limit: int,
        total: int,
        orphan_timeout: float,
        idle: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._idle = idle
        self._log = log
        self._limit = limit
        hello = {
            "version": VERSION,
            "limit": limit,
            "total": total,
            "orphan_timeout": orphan_timeout,
            "workspace": str(folder.parent),
        }
        self._starter = Starter(folder, log, hello, self._make_link)
        self.journal_bytes = 0
        """Bytes that are kept of what kernels have sent."""
        self._kernels: dict[str, dict[str, Any]] = {}
        self._feeds: dict[int, Feed] = {}
        self._backlogs: dict[str, Backlog] = {}
        self._feeding: set[str] = set()
        self._port: tuple[tuple[str, int], Sequence[socket.socket]] | None = None
        self._link: ServerLink | None = None
        self._connecting: asyncio.Task[ServerLink] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._pauses = Pauses()
        self._linked_at = 0.0
        self._problem = ""
        """Why there is no keeper, as it was logged."""
        self._is_given_up = False
        """Whether there will be none until the server is restarted."""

    # ------------------------------------------------------------------ kernels

    def keep(self, kernel_id: str, **about: Any) -> None:
        """Have a kernel recorded: from before any client's message reaches it.

        :param about: ``connection``, ``process``, ``is_new``, ``is_busy``, ``allowed`` and
            ``files``: its call ``kernel`` has them
        """
        known = self._kernels.get(kernel_id, {"is_first": about["is_new"]})
        # A process that was started again goes on with what was kept of the kernel.
        self._kernels[kernel_id] = {**about, "is_first": known["is_first"]}
        if self._link is not None:
            self._tell(self._link, kernel_id)
        else:  # the loop need not run yet
            IOLoop.current().add_callback(self._connect_soon)

    def _tell(self, link: ServerLink, kernel_id: str) -> None:
        about = self._kernels[kernel_id]
        is_fed = not about["is_new"] and kernel_id in self._backlogs
        call = link.call("kernel", kernel=kernel_id, is_fed=is_fed, **about)
        call.add_done_callback(self._answered)
        if is_fed:
            self._feeding.add(kernel_id)
            for frames in self._backlogs[kernel_id].messages():
                self._feed(link, kernel_id, frames)
        about["is_new"] = about["is_first"] = False

    def heard(self, kernel_id: str, frames: list[bytes]) -> None:
        """Take what the server has heard of a kernel: should the keeper be killed, it is needed."""
        backlog = self._backlogs.get(kernel_id)
        if backlog is None:
            backlog = self._backlogs[kernel_id] = Backlog(self._limit)
        backlog.add(frames)
        if kernel_id in self._feeding and self._link is not None:
            self._feed(self._link, kernel_id, frames)

    def _feed(self, link: ServerLink, kernel_id: str, frames: Sequence[bytes]) -> None:
        link.send(pack(Kind.FED, Channel.IOPUB, 0, [kernel_id.encode(), *frames]))

    def _noted(self, note: dict[str, Any]) -> None:
        what = note.get("op")
        if what == "recorded":
            self.journal_bytes = note["bytes"]
            for kernel_id, last in note["kernels"].items():
                if kernel_id in self._backlogs:
                    self._backlogs[kernel_id].recorded(last.encode("latin-1"))
            for kernel_id in note["idle"]:
                self._idle(kernel_id)
            for stream, count in note["forwarded"].items():
                if (feed := self._feeds.get(int(stream))) is not None:
                    feed.forwarded(count)
        elif what == "spliced":
            self._feeding.discard(note["kernel"])
        elif what == "missed" and (feed := self._feeds.get(note["stream"])) is not None:
            feed.missed(note["count"])

    def _answered(self, answer: asyncio.Future[dict[str, Any]]) -> None:
        error = None if answer.cancelled() else answer.exception()
        if error is not None and not isinstance(error, KeeperGoneError):  # that is logged once
            self._log.warning("The keeper: %s", error)

    def forget(self, kernel_id: str, *, has_transcript: bool) -> None:
        """Have a kernel that has ended recorded no more.

        :param has_transcript: what is recorded is kept: see :mod:`.kernels.logs`
        """
        self._backlogs.pop(kernel_id, None)
        self._feeding.discard(kernel_id)
        if self._kernels.pop(kernel_id, None) is not None and self._link is not None:
            self._link.call(
                "forget", kernel=kernel_id, has_transcript=has_transcript
            ).add_done_callback(self._answered)

    def keeps(self, kernel_id: str) -> bool:
        """Tell whether a kernel is recorded."""
        return kernel_id in self._kernels

    # ------------------------------------------------------------------ the port

    def hold_port(self, address: tuple[str, int], sockets: Sequence[socket.socket]) -> None:
        """Have the port that the server listens on stay open when the server is gone."""
        self._port = address, sockets
        if self._link is not None:
            self._tell_port(self._link)

    def _tell_port(self, link: ServerLink) -> None:
        if self._port is None:
            return
        (host, port), sockets = self._port
        if any(listener.fileno() < 0 for listener in sockets):  # the server is being stopped
            return
        files = [os.dup(listener.fileno()) for listener in sockets]
        call = link.call("hold_port", files, host=host, port=port, count=len(sockets))
        call.add_done_callback(self._answered)

    @property
    def held_port(self) -> int | None:
        """The port that stays open when the server is gone; None: none does."""
        return None if self._port is None else self._port[0][1]

    def close_port(self) -> None:
        """Have the port closed with the server."""
        self._port = None
        self._note("close_port")

    # ------------------------------------------------------------------ clients

    async def attach(
        self,
        feed: Feed,
        kernel_id: str,
        client: str,
        *,
        delivery: int,
        peer: int | None = None,
        number: int | None = None,
    ) -> dict[str, Any]:
        """Connect a client.

        :param delivery: the descriptor of its :class:`.delivery.Delivery`
        :param peer: that of its connection; of both the keeper gets duplicates
        :param number: of the last message that it has; None: the keeper knows
        :returns: ``stream``, ``received`` and ``last``
        :raises KeeperGoneError: it may be tried again
        :raises NoKeeperError: there is no keeper, as was logged
        :raises KeeperError: it cannot be
        """
        if not self.keeps(kernel_id):
            raise KeeperError(f"kernel {kernel_id} has ended, or the server stops")
        # The client may go while it is waited for, and others may get its numbers.
        files = [os.dup(file) for file in (delivery, peer) if file is not None]
        try:
            link = self._link
            if link is None:
                link = await self._connect_for_client()
        except BaseException:
            for file in files:
                os.close(file)
            raise

        def attached(said: dict[str, Any]) -> None:
            self._feeds[said["stream"]] = feed  # what is for it may be here already

        return await link.call(
            "attach",
            files,
            attached,
            kernel=kernel_id,
            client=client,
            has_peer=peer is not None,
            number=number,
        )

    def detach(self, stream: int) -> None:
        """Disconnect a client."""
        self._feeds.pop(stream, None)
        self._note("detach", stream=stream)

    def passed_on(self, stream: int, size: int) -> None:
        """Have more sent to a client: it was passed on so many bytes of records."""
        self._note("passed_on", stream=stream, size=size)

    def _note(self, what: str, **more: Any) -> None:
        if self._link is not None:
            self._link.send(pack_json(Kind.NOTE, op=what, **more))

    def request(self, stream: int, channel: str, frames: Sequence[bytes]) -> None:
        """Send a client's message to its kernel; one that it has had already is not sent again."""
        if self._link is not None:
            self._link.send(pack(Kind.REQUEST, CHANNELS[channel], stream, frames))

    # ------------------------------------------------------------------ the keeper

    def _connect(self) -> asyncio.Future[ServerLink]:
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.ensure_future(self._connected())
            self._connecting.add_done_callback(self._tried)
        return self._connecting

    def _connect_soon(self) -> None:
        if self._link is None and self._kernels:
            self._connect()

    async def _connect_for_client(self) -> ServerLink:
        """Return a link; after a first failure, no client waits long for it.

        :raises NoKeeperError: there is none
        """
        connecting = asyncio.shield(self._connect())
        timeout = PATIENCE if self._problem else None
        try:
            return await asyncio.wait_for(connecting, timeout)
        except asyncio.TimeoutError:
            raise NoKeeperError(self._problem) from None
        except KeeperError as error:
            raise NoKeeperError(str(error)) from error

    def _tried(self, connecting: asyncio.Future[ServerLink]) -> None:
        if connecting.cancelled() or (error := connecting.exception()) is None:
            return
        if isinstance(error, NoKeeperError):  # it was not tried
            return
        if str(error) != self._problem:
            self._problem = str(error)
            self._log.error("There is no keeper, so that output may be lost: %s", error)
        if self._kernels and not self._is_given_up:
            asyncio.get_running_loop().call_later(self._pauses.left, self._connect_soon)

    async def _connected(self) -> ServerLink:
        """Return a link, after more than one attempt if these are not far apart.

        :raises KeeperError: there is none
        """
        if self._link is not None:
            return self._link
        if self._is_given_up or self._pauses.left > PATIENCE:
            raise NoKeeperError(self._problem)
        while True:
            await asyncio.sleep(self._pauses.left)
            try:
                link = await self._opened()
                break
            except KeeperVersionError:
                self._is_given_up = True
                raise
            except Exception:
                if self._pauses.begin() > PATIENCE:
                    raise
        self._link = link
        self._linked_at = time.monotonic()
        self._problem = ""
        for kernel_id in self._kernels:
            self._tell(link, kernel_id)
        self._tell_port(link)
        self._watching = asyncio.ensure_future(self._starter.watch(link))
        return link

    async def _opened(self) -> ServerLink:
        """Return a link with a keeper that has not ended in that moment.

        :raises KeeperError: there is none
        """
        while True:
            try:
                link = await asyncio.wait_for(self._starter.open(), START_TIMEOUT)
            except asyncio.TimeoutError:
                self._starter.give_up()
                raise KeeperError(f"no keeper answered in {START_TIMEOUT:.0f} s") from None
            except OSError as error:
                raise KeeperError(f"it cannot be started: {error}") from error
            if link.is_open:
                return link

    def _make_link(self, connection: socket.socket) -> ServerLink:
        return ServerLink(self._log, connection, self._feeds, self._noted, self._ended)

    def _ended(self, link: ServerLink, reason: str) -> None:
        """Go on with another keeper: nobody else needs to notice."""
        if link is not self._link:  # it was never in use, and is looked for another one already
            return
        self._link = None
        if self._watching is not None:
            self._watching.cancel()
        feeds = [*self._feeds.values()]
        self._feeds.clear()
        if time.monotonic() - self._linked_at > SOON:
            self._pauses.reset()
        pause = self._pauses.begin()
        if self._kernels:
            when = f" in {pause:.0f} s" if pause > PATIENCE else ""
            self._log.warning("The keeper is gone (%s); another one is started%s.", reason, when)
            if pause > PATIENCE:
                self._problem = f"it has ended: {reason}"
                asyncio.get_running_loop().call_later(pause, self._connect_soon)
            else:
                self._connect()
        for feed in feeds:
            feed.lost()

    async def close(self) -> None:
        """Let go of the keeper, which goes on; one that has just ended is replaced before."""
        if self._kernels:
            with contextlib.suppress(KeeperError, asyncio.TimeoutError):
                await asyncio.wait_for(self._answers(), CLOSE_TIMEOUT)
        self._kernels.clear()
        if self._connecting is not None:
            self._connecting.cancel()
            # It may have connected in that moment.
            await asyncio.wait([self._connecting], timeout=CLOSE_TIMEOUT)
        if self._watching is not None:
            self._watching.cancel()
        if self._link is not None:
            link, self._link = self._link, None
            link.close()

    async def _answers(self) -> None:
        """Wait until there is a keeper that has taken all that was sent.

        :raises KeeperError: none can be started
        """
        while True:
            with contextlib.suppress(KeeperGoneError):
                await (await asyncio.shield(self._connect())).call("ping")
                return
