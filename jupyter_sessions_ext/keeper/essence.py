"""What a ring does not drop with the rest: what ends clients' cells, and what they are asked.

A client that was away for too long misses output, and is told so. Without the reply to its request
it would wait for ever.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .messages import CONTENT, HEADER, message_type
from .protocol import Channel, ProtocolError, measure_records, record_spans, unpack_records


class Essence:
    """Records out of what was dropped, in one file; nothing of it is in memory.

    :param folder: where the file is
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "essence"
        self.size = 0
        """Bytes."""
        with contextlib.suppress(OSError):
            self.size = _whole(self._read())
            os.truncate(self._path, self.size)  # its keeper may have been killed as it wrote

    def take(self, dropped: bytes, limit: int) -> None:
        """Keep what is essential of records that are dropped, within so many bytes; the latest."""
        data = b"".join(_essential(dropped))
        if not data:
            return
        is_over = self.size + len(data) > limit
        if is_over:
            data = _latest(self._read() + data, limit // 2)
        how = os.O_TRUNC if is_over else os.O_APPEND
        with contextlib.suppress(OSError):  # a full disk: what is in the ring is all there is
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
            try:
                if os.write(file, data) != len(data):
                    os.ftruncate(file, 0)
            finally:
                self.size = os.fstat(file).st_size
                os.close(file)

    def since(self, number: int) -> tuple[bytes, int]:
        """Return the records from a number on, and how many there are."""
        data = self._read()
        found = [(start, end) for _, n, start, end in record_spans(data) if n >= number]
        return (data[found[0][0] : found[-1][1]], len(found)) if found else (b"", 0)

    def _read(self) -> bytes:
        with contextlib.suppress(OSError):
            return self._path.read_bytes()
        return b""


def is_essential(channel: Channel, frames: Sequence[bytes]) -> bool:
    """Tell what is for a client alone, or ends something."""
    if channel is not Channel.IOPUB:
        return True
    return b'"idle"' in frames[CONTENT] and message_type(frames[HEADER]) == "status"


def _essential(data: bytes) -> Iterator[bytes]:
    for channel, _, start, end in record_spans(data):
        if channel is not Channel.IOPUB or data.find(b'"idle"', start, end) >= 0:
            [record] = unpack_records(data[start:end])
            if is_essential(channel, record.frames):
                yield data[start:end]


def _latest(data: bytes, size: int) -> bytes:
    """Return the last records of some data, of so many bytes at most."""
    starts = (start for _, _, start, _ in record_spans(data))
    return data[next((start for start in starts if len(data) - start <= size), len(data)) :]


def _whole(data: bytes) -> int:
    """Return of how many bytes some data's whole records are; none, if there is something else."""
    try:
        return measure_records(data)[1]
    except ProtocolError:
        return 0
