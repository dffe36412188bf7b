"""What a client is sent of a kernel's ring, over the server: as fast as it takes it."""

from __future__ import annotations

from collections.abc import Callable

from .protocol import Channel, Kind, pack, pack_json
from .ring import MissedError, Reader

WINDOW = 1 << 18
"""Bytes that may be on their way to the client: the server says what it has passed on."""

_CHUNK = 1 << 16


class Stream:
    """A client's place in a ring.

    :param number: its name towards the server
    :param send: is given packets for the server
    """

    def __init__(self, number: int, reader: Reader, send: Callable[[bytes], object]) -> None:
        self.number = number
        self._reader = reader
        self._send = send
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
            except OSError as error:
                self._reader.skip()
                self._note("missed", count=0, reason=str(error))
                continue
            if not data:
                self._is_up_to_date = True
                return
            self._send_records(data)

    def _send_records(self, data: bytes) -> None:
        self._room -= len(data)
        self._send(pack(Kind.STREAM, Channel.IOPUB, self.number, [data]))

    def _note(self, what: str, **more: object) -> None:
        self._send(pack_json(Kind.NOTE, op=what, stream=self.number, **more))
