"""What a kernel has sent, the latest of it: in files, so that it outlives the keeper too."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from .essence import Essence, is_essential
from .protocol import (
    HEAD_SIZE,
    Channel,
    ProtocolError,
    length_of_first,
    measure_records,
    offset_of,
    pack_record,
)

SEGMENTS = 8
"""A ring's limit is that of so many files; the oldest goes as a whole."""

_SUFFIX = ".ring"

_LONGEST_NAME = 200
"""Bytes; most file systems take 255."""


def folder_name(kernel_id: str) -> str:
    """Return a kernel's folder: a client may choose the id, which must not lead out of it."""
    name = quote(kernel_id, safe="")
    if len(name) > _LONGEST_NAME:  # no other name has these letters behind a percent sign
        name = f"%sha256-{hashlib.sha256(kernel_id.encode()).hexdigest()}"
    return f"kernel-{name}"


class Segment:
    """Records that follow one another, in one file.

    :param folder: None keeps them in memory
    """

    def __init__(self, folder: Path | None, first: int) -> None:
        self.first = first
        self.size = 0
        self._path = None if folder is None else folder / f"{first:020d}{_SUFFIX}"
        self._file: int | None = None

    @classmethod
    def load(cls, path: Path) -> tuple[Segment, int]:
        """Return the segment of a file, and the number that follows its last record.

        What is not a whole record at its end is cut off: its keeper was killed as it wrote.

        :raises ValueError: it is no segment
        """
        segment = cls(path.parent, int(path.name.removesuffix(_SUFFIX)))
        count, segment.size, _ = measure_records(path.read_bytes())
        os.truncate(path, segment.size)
        return segment, segment.first + count

    def write(self, data: bytes) -> None:
        """Append to it.

        :raises OSError: nothing was written
        """
        if self._file is None:
            self._file = self._open()
        written = 0
        try:
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self.size + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)
            raise
        self.size += len(data)

    def _open(self) -> int:
        if self._path is not None:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if hasattr(os, "memfd_create"):
            return os.memfd_create("ring")
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())

    def seal(self) -> None:
        """Write no more to it."""
        if self._path is not None:
            self._close()

    def read(self, offset: int, size: int) -> bytes:
        """Return so much of it from there on, or what there is.

        :raises OSError: it cannot be read
        """
        if self._file is not None:
            return os.pread(self._file, size, offset)
        assert self._path is not None
        file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(file, size, offset)
        finally:
            os.close(file)

    def remove(self) -> None:
        """Be no more."""
        self._close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Ring:
    """The messages of one kernel, numbered from 1; the oldest are dropped beyond a limit.

    The latest message is always kept, however large it is.

    :param folder: where its files are, and nothing else; it is made
    :param limit: bytes
    :param report: is told what is wrong with the disk; the messages are in memory then
    """

    def __init__(
        self, folder: Path, limit: int, report: Callable[[str], object] = lambda _: None
    ) -> None:
        self.folder = folder
        self.limit = limit
        """Bytes that are kept at most."""
        self._report = report
        self._segments: list[Segment] = []
        self.next = 1
        """The number of the next message."""
        with contextlib.suppress(OSError):  # all is in memory then
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.essence = Essence(folder)
        self.size = 0
        """Bytes."""
        self._load()

    def _load(self) -> None:
        """Go on with what another keeper has left."""
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            try:
                segment, after = Segment.load(path)
            except (ValueError, OSError) as error:
                self._report(f"{path.name} is not used: {error}")
                path.unlink(missing_ok=True)
                continue
            if self._segments and segment.first != self.next:
                # One in between is lost, with its keeper's memory: what came before is too old.
                for older in self._segments:
                    older.remove()
                self._segments.clear()
            self._segments.append(segment)
            self.next = after
        self.size = self.essence.size + sum(segment.size for segment in self._segments)
        if self._segments:
            self._begin()

    @property
    def first(self) -> int:
        """The number of the oldest message that is kept."""
        return self._segments[0].first if self._segments else self.next

    def append(self, messages: Iterable[tuple[Channel, bytes, Sequence[bytes]]]) -> bytes:
        """Keep messages, and return them as records.

        :param messages: channel, client, and frames of each
        """
        kept, batch, size = [], list[bytes](), 0
        for channel, client, frames in messages:
            record = self._record(channel, self.next + len(batch), client, frames)
            if record is not None:
                batch.append(record)
                size += len(record)
            if size >= self.limit // SEGMENTS:
                kept.append(self._keep(batch))
                batch, size = [], 0
        kept.append(self._keep(batch))
        return b"".join(kept)

    def _keep(self, records: Sequence[bytes]) -> bytes:
        data = b"".join(records)
        if data:
            self._write(data)
            self.size += len(data)
            self.next += len(records)
            self._drop(self.limit)
        return data

    def _record(
        self, channel: Channel, number: int, client: bytes, frames: Sequence[bytes]
    ) -> bytes | None:
        """Return a message as a record; None: it is too large for one."""
        try:
            return pack_record(channel, number, client, frames)
        except ProtocolError as error:
            self._report(f"a message in {self.folder.name} is not kept: {error}")
            return None

    def set_limit(self, limit: int) -> None:
        """Keep so many bytes from now on."""
        self.limit = limit
        self._drop(limit)

    def _write(self, data: bytes) -> None:
        if not self._segments or self._segments[-1].size + len(data) > self.limit // SEGMENTS:
            self._begin()
        try:
            self._segments[-1].write(data)
        except OSError as error:
            self._report(f"{self.folder.name} is kept in memory: {error}")
            self._begin(in_memory=True)
            self._segments[-1].write(data)

    def _begin(self, in_memory: bool = False) -> None:
        """Have what follows in another segment."""
        if self._segments:
            self._segments[-1].seal()
            if not self._segments[-1].size:
                self._segments.pop().remove()
        self._segments.append(Segment(None if in_memory else self.folder, self.next))

    def _drop(self, limit: int) -> None:
        """Drop the oldest files beyond a limit."""
        while self.size > limit and len(self._segments) > 1:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = self._segments.pop(0)
        self.size -= oldest.size
        with contextlib.suppress(OSError):
            self._take_essence(oldest.read(0, oldest.size))
        oldest.remove()

    def _take_essence(self, dropped: bytes) -> None:
        self.size -= self.essence.size
        self.essence.take(dropped, self.limit // SEGMENTS)
        self.size += self.essence.size

    def skip(
        self, messages: Sequence[tuple[Channel, bytes, Sequence[bytes]]], more: int = 0
    ) -> None:
        """Drop messages before they are kept, and all before them, but for what is essential.

        :param more: how many more are dropped that are not
        """
        while self._segments:
            self._drop_oldest()
        records = (
            self._record(channel, number, client, frames)
            for number, (channel, client, frames) in enumerate(messages, self.next)
            if is_essential(channel, frames)
        )
        self._take_essence(b"".join(filter(None, records)))
        self.next += len(messages) + more
        self._begin()

    def shrink(self) -> bool:
        """Drop the oldest file; tell whether there was one to drop."""
        if len(self._segments) == 1 and self._segments[0].size:
            self._begin()
        had = len(self._segments) > 1
        self._drop(self.size - 1)
        return had

    def close(self) -> None:
        """Write no more; what is in files stays."""
        for segment in self._segments:
            segment.seal()

    def remove(self) -> None:
        """Forget all."""
        for segment in self._segments:
            segment.remove()
        self._segments.clear()
        self.size = 0
        shutil.rmtree(self.folder, ignore_errors=True)

    def number_at(self, size: int) -> int:
        """Return the number of a message that has so many bytes of the ring behind it, or more."""
        for segment in reversed(self._segments):
            size -= segment.size
            if size <= 0:
                return segment.first
        return self.first

    def reader(self, number: int) -> Reader:
        """Return a reader whose next message is that one, or the oldest that is kept."""
        return Reader(self, number)

    def _segment_of(self, number: int) -> Segment | None:
        """Return the segment that has a message; for the next one the last."""
        for segment in reversed(self._segments):
            if segment.first <= number:
                return segment
        return None

    def _after(self, segment: Segment) -> Segment | None:
        for other in self._segments:
            if other.first > segment.first:
                return other
        return None


def read_ring(folder: Path) -> Iterator[bytes]:
    """Yield what each file of a ring has, the oldest first, while its keeper may go on with it.

    The last record of each may be there in part. What could not be written is missing.
    """
    with contextlib.ExitStack() as stack:
        files = []
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            with contextlib.suppress(FileNotFoundError):  # it was dropped
                files.append(stack.enter_context(open(path, "rb")))
        for file in files:
            yield file.read()


class Reader:
    """A place in a ring."""

    def __init__(self, ring: Ring, number: int) -> None:
        self._ring = ring
        self.number = min(number, ring.next)
        """Of the message that is read next."""
        self._segment: Segment | None = None
        self._offset = 0

    @property
    def is_at_end(self) -> bool:
        """Whether there is nothing left to be read."""
        return self.number >= self._ring.next

    def skip(self) -> None:
        """Go to the end."""
        self.number = self._ring.next
        self._segment = self._ring._segments[-1] if self._ring._segments else None
        self._offset = self._segment.size if self._segment else 0

    def skip_file(self) -> int:
        """Go on after the file that cannot be read; return how many messages are left out."""
        segment = self._segment or self._ring._segment_of(self.number)
        after = None if segment is None else self._ring._after(segment)
        left_out = (self._ring.next if after is None else after.first) - self.number
        self.number += left_out
        self._segment = None
        return left_out

    def read(self, size: int) -> bytes:
        """Return the records that follow: one at least if there is any, and about so many bytes.

        :raises MissedError: some that were to be read are dropped; next are the oldest there are
        :raises OSError: the file cannot be read
        """
        if self.is_at_end:
            return b""
        if self.number < self._ring.first:
            kept, count = self._ring.essence.since(self.number)
            missed = self._ring.first - self.number - count
            self.number = self._ring.first
            self._segment = None
            raise MissedError(missed, kept)
        if self._segment is None:
            self._seek()
        assert self._segment is not None
        if self._offset >= self._segment.size:
            self._segment, self._offset = self._ring._after(self._segment), 0
            assert self._segment is not None
        data = self._segment.read(self._offset, max(size, HEAD_SIZE))
        count, end, _ = measure_records(data, size)
        if not count:
            data = self._segment.read(self._offset, length_of_first(data[:HEAD_SIZE]))
            count, end, _ = measure_records(data)
        self.number += count
        self._offset += end
        return data[:end]

    def _seek(self) -> None:
        segment = self._ring._segment_of(self.number)
        assert segment is not None
        data = segment.read(0, segment.size)
        self._segment, self._offset = segment, offset_of(data, self.number - segment.first)


class MissedError(LookupError):
    """Messages were dropped before they were read.

    :param kept: the records among them that were not, see :class:`.essence.Essence`
    """

    def __init__(self, count: int, kept: bytes) -> None:
        self.count = count
        self.kept = kept
        super().__init__(f"{count} messages were dropped")
