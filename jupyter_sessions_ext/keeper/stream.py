"""What a client is sent of a kernel's ring, over the server: as fast as it takes it."""

from __future__ import annotations

import time
from collections.abc import Callable

from .protocol import Channel, Kind, pack, pack_json
from .ring import MissedError, Reader

WINDOW = 1 << 18
"""Bytes that may be on their way to the client: the server says what it has passed on."""

RETRY_INTERVAL, RETRY_TIMEOUT = 0.1, 5.0
"""Seconds between attempts to read the ring, and after which what cannot be read is left out."""

_CHUNK = 1 << 16


class Stream:
    """A client's place in a ring.

    :param number: its name towards the server
    :param send: is given packets for the server
    :param later: calls in so many seconds
    """

    def __init__(
        self,
        number: int,
        reader: Reader,
        send: Callable[[bytes], object],
        later: Callable[[float, Callable[[], object]], object],
    ) -> None:
        self.number = number
        self._reader = reader
        self._send = send
        self._later = later
        self._failed: float | None = None
        """Since when the ring cannot be read."""
        self._is_due = False
        self._room = WINDOW
        self._is_up_to_date = False

    def appended(self, data: bytes) -> None:
        """Send what was just appended to the ring, if all before it is sent."""
        if self._is_up_to_date and len(data) <= self._room:
            self._reader.skip()
            self._send_records(data)
        else:
            self.pump()

    def passed_on(self, size: int) -> None:
        """Note that the client was sent so many bytes of it."""
        self._room += size
        if not self._is_up_to_date:
            self.pump()

    def pump(self) -> None:
        """Send what there is, and there is room for."""
        self._is_up_to_date = False
        while self._room > 0:
            try:
                data = self._reader.read(min(self._room, _CHUNK))
            except MissedError as error:
                if error.count:
                    self._note("missed", count=error.count)
                if error.kept:
                    self._send_records(error.kept)
                continue
            except OSError:
                if self._waits():
                    return
                self._note("missed", count=self._reader.skip_file())
                continue
            self._failed = None
            if not data:
                self._is_up_to_date = True
                return
            self._send_records(data)

    def _waits(self) -> bool:
        """Try again soon, unless that was done for long: there may be no descriptors just now."""
        now = time.monotonic()
        if self._failed is None:
            self._failed = now
        elif now - self._failed > RETRY_TIMEOUT:
            self._failed = None
            return False
        if not self._is_due:
            self._is_due = True
            self._later(RETRY_INTERVAL, self._again)
        return True

    def _again(self) -> None:
        self._is_due = False
        if self._failed is not None:
            self.pump()

    def _send_records(self, data: bytes) -> None:
        self._room -= len(data)
        self._send(pack(Kind.STREAM, Channel.IOPUB, self.number, [data]))

    def _note(self, what: str, **more: object) -> None:
        self._send(pack_json(Kind.NOTE, op=what, stream=self.number, **more))
