"""A keeper is found, or started where there is none; one that does not answer is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import KeeperError, KeeperGoneError, KeeperVersionError
from .channel import ServerLink
from .protocol import VERSION
from .takeover import connect, signal_holder

ANSWER_TIMEOUT = 5.0
"""Seconds after which a keeper that does not answer is replaced."""

LOG_LIMIT = 1 << 20
"""Bytes; a keeper that is started begins a longer log anew."""

_PING_INTERVAL = 5.0
_GRACE = 0.2
_RETRY_INTERVAL = 0.02

COMMAND: tuple[str, ...] = ("-m", f"{__package__}")
"""What Python runs as a keeper, in a folder."""

_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "98304"}
"""Has glibc give back the memory of large messages: else what a flood took once stays taken."""

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
"""What a keeper has of the server's environment: it must not hold its secrets."""

_PASSED_ON_TO_PYTHON = (
    "PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONPLATLIBDIR",
    "PYTHONPYCACHEPREFIX", "PYTHONUSERBASE",
)  # fmt: skip
"""What it has if the server's Python looks at it, too."""


class Starter:
    """Finds the keeper of a folder, or starts one.

    :param hello: what it is greeted with
    :param make_link: makes a link of a connection with it
    """

    def __init__(
        self,
        folder: Path,
        log: logging.Logger | Any,
        hello: Mapping[str, Any],
        make_link: Callable[[socket.socket], ServerLink],
    ) -> None:
        self._folder = folder
        self._log = log
        self._hello = hello
        self._make_link = make_link
        self._process: subprocess.Popen[bytes] | None = None

    async def open(self) -> ServerLink:
        """Return a link with a keeper, which is started if there is none.

        :raises KeeperVersionError: the one that was started is of another version
        :raises KeeperError: it ended at once, or has another server
        :raises OSError: it cannot be started
        """
        if self._process is not None and self._process.poll() is not None:
            self._process = None  # that of before: how it ended is no matter any more
        found_none = 0.0
        while True:
            connection = await self._try()
            if connection is not None:
                link = await self._greet(connection)
                if link is not None:
                    return link
            elif await self._start():
                # There is one that cannot be reached: its socket's file is gone, or it hangs.
                found_none += _RETRY_INTERVAL
                self._signal(signal.SIGKILL if found_none > ANSWER_TIMEOUT else signal.SIGUSR1)
            await asyncio.sleep(_RETRY_INTERVAL)

    def give_up(self) -> None:
        """End the keeper that was started and has not answered."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    async def watch(self, link: ServerLink) -> None:
        """Replace a keeper that hangs."""
        while True:
            await asyncio.sleep(_PING_INTERVAL)
            received = link.received
            try:
                await _answer(link.call("ping"))
            except asyncio.TimeoutError:
                if link.received == received:
                    self._log.error("The keeper does not answer, and is replaced.")
                    self._signal(signal.SIGKILL)
            except KeeperGoneError:
                return

    async def _greet(self, connection: socket.socket) -> ServerLink | None:
        """Return a link with a keeper; None if it is not the right one."""
        link = self._make_link(connection)
        with contextlib.ExitStack() as stack:
            stack.callback(link.close)
            if await self._is_right(link):
                stack.pop_all()
                return link
        return None

    async def _is_right(self, link: ServerLink) -> bool:
        """Greet a keeper; end one that hangs, or is of another version. What it kept stays.

        :raises KeeperVersionError: the next one would be of another version, too
        :raises KeeperError: it has another server
        """
        try:
            answer = await _answer(link.call("hello", **self._hello))
            if answer.get("version") == VERSION:
                refused = answer.get("refused")
            else:
                await self._retire(link, answer)
                return False
        except KeeperVersionError:
            raise
        except asyncio.TimeoutError:
            self._log.warning("The keeper does not answer, and is replaced.")
            self._signal(signal.SIGKILL)
        except KeeperGoneError:
            pass
        except KeeperError as error:
            self._log.warning("The keeper is replaced: %s", error)
            self._signal(signal.SIGKILL)
        else:
            if refused:
                raise KeeperError(f"{refused}: two servers must not use one workspace")
            return True
        return False

    async def _retire(self, link: ServerLink, answer: Mapping[str, Any]) -> None:
        """End a keeper of another version; if it is of this server's making, for good."""
        is_own = self._process is not None and self._process.pid == answer.get("pid")
        if not is_own:
            self._log.info("The keeper is of another version, and is replaced.")
        await _answer(link.call("retire"))
        if is_own:
            raise KeeperVersionError(
                "jupyter_sessions_ext was replaced by another version while this server runs; "
                "restart the server"
            )

    def _signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            signal_holder(self._folder, number)

    async def _try(self) -> socket.socket | None:
        loop = asyncio.get_running_loop()
        connecting = loop.run_in_executor(None, connect, self._folder, ANSWER_TIMEOUT)
        try:
            return await asyncio.shield(connecting)
        except OSError:
            return None
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                (await connecting).close()
            raise

    async def _start(self) -> bool:
        """Start a keeper, unless one is being started; tell whether there was one already.

        :raises KeeperError: it ended at once
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process = None
            if code:
                how = f"with code {code}" if code > 0 else f"by signal {-code}"
                raise KeeperError(f"it ended {how}: see {self._folder}/keeper.log")
            return True  # another one has the lock
        if self._process is None:
            self._process = await asyncio.to_thread(self._launch)
        return False

    def _launch(self) -> subprocess.Popen[bytes]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / "keeper.log"
        is_long = path.exists() and path.stat().st_size > LOG_LIMIT
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if is_long else 0)
        log = os.open(path, how, 0o600)
        try:
            process = subprocess.Popen(
                [sys.executable, *COMMAND, str(self._folder)],
                env=_environment(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        threading.Thread(target=process.wait, name="keeper's end", daemon=True).start()
        return process


def _environment() -> dict[str, str]:
    """Return a keeper's environment: it finds every module where the server does."""
    names = _PASSED_ON if sys.flags.ignore_environment else _PASSED_ON + _PASSED_ON_TO_PYTHON
    passed_on = {name: os.environ[name] for name in names if name in os.environ}
    if sys.flags.no_user_site:
        passed_on["PYTHONNOUSERSITE"] = "1"
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    return {**passed_on, **_MEMORY, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


async def _answer(call: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
    """Wait for an answer.

    :raises asyncio.TimeoutError: there is none
    """
    await asyncio.wait([call], timeout=ANSWER_TIMEOUT)
    if not call.done():
        # The loop may have been held up for so long: what has come is looked at first.
        await asyncio.wait([call], timeout=_GRACE)
    if not call.done():
        raise asyncio.TimeoutError
    return call.result()
