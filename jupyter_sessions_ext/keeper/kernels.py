"""The kernels that a keeper keeps, with their clients and rings, in its folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from .client import Client
from .kernel import Kernel
from .loop import Loop
from .memo import Memo
from .protocol import CLIENTS, DEFAULT_LIMIT, DEFAULT_TOTAL, RINGS
from .ring import Ring, folder_name
from .splice import asked_of

MOST_CLIENTS = 100
"""Clients of a kernel that are known; beyond that, who was away for longest begins anew."""

_STDERR = 2


class Kernels:
    """Kernels by their id.

    :param folder: the keeper's
    :param recorded: is told of a kernel of which something was recorded
    :param forwarded: is told that something was forwarded
    :param spliced: is told of a kernel that the server need not feed any more
    :param ended: is told of a kernel whose process has ended
    """

    def __init__(
        self,
        folder: Path,
        loop: Loop,
        *,
        recorded: Callable[[Kernel], object],
        forwarded: Callable[[], object],
        spliced: Callable[[Kernel], object],
        ended: Callable[[Kernel], object],
    ) -> None:
        self._limit, self._total = DEFAULT_LIMIT, DEFAULT_TOTAL
        self._rings, self._clients = folder / RINGS, folder / CLIENTS
        for made in (self._rings, self._clients):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._loop = loop
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        self._context.max_sockets = 10_000
        self._recorded, self._forwarded = recorded, forwarded
        self._spliced, self._ended = spliced, ended
        self._kernels: dict[str, Kernel] = {}

    def set_limits(self, limit: int, total: int) -> None:
        """Keep so many bytes of each, and of all."""
        self._limit, self._total = limit, total
        for kernel in self:
            kernel.ring.set_limit(limit)

    def __getitem__(self, kernel_id: str) -> Kernel:
        return self._kernels[kernel_id]

    def __iter__(self) -> Iterator[Kernel]:
        return iter([*self._kernels.values()])

    def __len__(self) -> int:
        return len(self._kernels)

    def get(self, kernel_id: str) -> Kernel | None:
        """Return a kernel, if it is kept."""
        return self._kernels.get(kernel_id)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(kernel.ring.size for kernel in self._kernels.values())

    def keep(self, kernel_id: str, *, is_new: bool, is_fed: bool) -> Kernel:
        """Return a kernel; one that is not kept yet begins with what another keeper has left.

        :param is_new: it was never kept: what is left is of another one
        :param is_fed: the server has heard it until now
        """
        kept = self._kernels.get(kernel_id)
        if kept is None:
            ring = Ring(self._rings / folder_name(kernel_id), self._limit, log)
            if is_new and ring.next > 1:
                ring.remove()
                ring = Ring(ring.folder, self._limit, log)
            kept = self._kernels[kernel_id] = Kernel(
                kernel_id,
                self._loop,
                self._context,
                ring,
                changed=self._changed,
                forwarded=self._forwarded,
                spliced=self._spliced,
                ended=self._ended,
            )
            self._load_clients(kept)
            if is_new:
                self._drop_clients(kept)
            elif is_fed:
                kept.splice()
        return kept

    def _changed(self, kernel: Kernel) -> None:
        """Keep to the limit for all: the largest ring gives way."""
        while self.size > self._total:
            largest = max(self._kernels.values(), key=lambda kernel: kernel.ring.size)
            if not largest.ring.shrink():
                break
        self._recorded(kernel)

    def drop(self, kernel_id: str, *, has_transcript: bool) -> None:
        """Forget a kernel that has ended.

        :param has_transcript: its ring is kept: the server removes it in its time
        """
        kept = self._kernels.pop(kernel_id, None)
        if kept is not None:
            self._drop_clients(kept)
            kept.close()
            kept.ring.close() if has_transcript else kept.ring.remove()

    def client(self, kernel: Kernel, client: bytes) -> Client:
        """Return a client of a kernel; one that is not known begins with what comes from now on."""
        found = kernel.clients.pop(client, None)
        if found is not None:
            kernel.clients[client] = found  # as the latest
        else:
            self._drop_oldest(kernel)
            folder = self._clients_of(kernel)
            with contextlib.suppress(OSError):  # on a full disk nothing is noted of it
                folder.mkdir(mode=0o700, exist_ok=True)
            memo = Memo(folder, kernel.kernel_id, client, kernel.ring.next - 1, {})
            memo.write()
            found = kernel.client(memo)
        return found

    def _drop_oldest(self, kernel: Kernel) -> None:
        """Forget who was away for longest: a page that is reloaded is another client each time."""
        if len(kernel.clients) >= MOST_CLIENTS:
            for oldest in kernel.clients.values():
                if oldest.is_away:
                    self._drop_client(kernel, oldest)
                    break

    def _load_clients(self, kernel: Kernel) -> None:
        """Know the clients that another keeper has known."""
        seen = asked_of(kernel.ring)
        for path in Memo.all(self._clients_of(kernel)):
            memo = _load(path)
            if memo is not None:
                # It may be ahead of a ring whose end was lost: what comes is new to the client.
                memo.received = min(memo.received, kernel.ring.next - 1)
                kernel.client(memo).has_sent(seen)

    def _clients_of(self, kernel: Kernel) -> Path:
        return self._clients / folder_name(kernel.kernel_id)

    def _drop_clients(self, kernel: Kernel) -> None:
        for client in [*kernel.clients.values()]:
            self._drop_client(kernel, client)
        shutil.rmtree(self._clients_of(kernel), ignore_errors=True)

    def _drop_client(self, kernel: Kernel, client: Client) -> None:
        del kernel.clients[client.memo.client]
        client.close()
        client.memo.remove()


def _load(path: Path) -> Memo | None:
    try:
        return Memo.load(path)
    except (OSError, ValueError) as error:
        log(f"{path.name} is not used: {error}")
        return None


def log(text: str) -> None:
    """Write a line to the log, which is standard error."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    with contextlib.suppress(OSError):  # on a full disk the keeper goes on all the same
        os.write(_STDERR, f"{stamp}Z {text}\n".encode(errors="replace"))
