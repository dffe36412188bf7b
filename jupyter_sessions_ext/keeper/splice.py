"""Another keeper's ring goes on without a gap: with what the server has heard in between.

A keeper that was killed leaves its ring, and its successor hears the kernel again only after a
while. The server hears the kernel too. What it has heard and the ring has not is put in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from .messages import HEADER, PARENT, identity, message_id
from .protocol import Channel, ProtocolError, Record, unpack_records
from .ring import Ring

TAIL = 4 << 20
"""Bytes of a ring's end in which is looked for what the server has heard."""

Frames = Sequence[bytes]


class Splice:
    """Puts two accounts of what a kernel has published together, as long as they do not meet.

    The one is what the keeper hears itself, without its beginning. The other is what it is fed by
    the server, from before the ring's end on. Both are complete in themselves, and in order.
    """

    def __init__(self, ring: Ring) -> None:
        self._known = _published(ring)
        self._fed: dict[bytes, None] = {}
        """Which messages came from the server and were not heard yet."""
        self._heard: list[Frames] = []
        self.has_met = False

    def feed(self, messages: Iterable[Frames]) -> list[Frames]:
        """Take what the server has heard; return what is to be recorded."""
        found: list[Frames] = []
        heard = {identity(frames) for frames in self._heard}
        for frames in messages:
            if self.has_met:
                break
            name = identity(frames)
            if name in heard:
                # What was fed until here came before the keeper listened.
                return found + self.give_up()
            if name not in self._known:
                self._known.add(name)
                self._fed[name] = None
                found.append(frames)
        return found

    def hear(self, messages: Iterable[Frames]) -> list[Frames]:
        """Take what the keeper has heard; return what is to be recorded."""
        found: list[Frames] = []
        for frames in messages:
            name = identity(frames)
            if name in self._fed:
                self.has_met = True
                while next(iter(self._fed)) != name:  # those came before the keeper listened
                    del self._fed[next(iter(self._fed))]
                del self._fed[name]
            elif name in self._known:
                continue  # the ring's last, heard by both keepers
            elif self.has_met:
                found.append(frames)
            else:
                self._heard.append(frames)
        return found

    def give_up(self) -> list[Frames]:
        """Go on with what the keeper hears, although it is not known what came before."""
        self.has_met = True
        self._fed.clear()
        found, self._heard = self._heard, []
        return found

    @property
    def is_waiting(self) -> bool:
        """Whether something was heard that is not recorded yet."""
        return bool(self._heard)

    @property
    def is_over(self) -> bool:
        """Whether all that was fed has been heard too, so that nothing need be compared."""
        return self.has_met and not self._fed


def _published(ring: Ring) -> set[bytes]:
    """Return the messages on iopub at a ring's end."""
    return {identity(r.frames) for r in tail_of(ring) if r.channel is Channel.IOPUB}


def asked_of(ring: Ring) -> set[str]:
    """Return the ids of the requests that a ring's end shows to have been handled."""
    states = (r.frames for r in tail_of(ring) if b'"status"' in r.frames[HEADER])
    return {asked for frames in states if (asked := message_id(frames[PARENT]))}


def tail_of(ring: Ring) -> Iterator[Record]:
    """Yield the last messages of a ring, as far as they can be read."""
    reader = ring.reader(ring.number_at(TAIL))
    with contextlib.suppress(OSError, ProtocolError):
        while data := reader.read(1 << 20):
            yield from unpack_records(data)
