"""The clients that are connected over a server: each has a stream to it."""

from __future__ import annotations

from collections.abc import Callable

from .client import Client, Connected
from .delivery import Delivery
from .kernel import Kernel
from .kernels import Kernels
from .link import Link
from .loop import Loop
from .peer import Peer
from .protocol import Packet, ProtocolError
from .stream import Stream

REATTACH_TIMEOUT = 2.0
"""Seconds that a client waits at most, when it is back, until it is known what it has."""


class Streams:
    """Clients by the number of their stream, each with the link over which it is connected."""

    def __init__(self, kernels: Kernels, loop: Loop) -> None:
        self._kernels = kernels
        self._loop = loop
        self._attached: dict[int, tuple[Client, Link]] = {}
        self._last = 0

    def attach(
        self,
        link: Link,
        answer: Callable[..., None],
        kernel: str,
        client: str,
        has_peer: bool,
        number: int | None = None,
    ) -> None:
        """Connect a client, as soon as it is known what it has.

        :param answer: is given what the server is answered
        :param number: of the last message that it has; None: that is known here
        :raises ProtocolError: no descriptor came with the call
        :raises LookupError: the kernel is not known, or not where
        """
        connection = _connection(link, has_peer)
        try:
            kept = self._kernels[kernel]
            if not kept.is_connected:
                raise LookupError(f"there is no connection to kernel {kernel}")
            found = self._kernels.client(kept, client.encode())
        except BaseException:
            connection.release()
            raise

        def attach() -> None:
            if not link.is_open or self._kernels.get(kernel) is not kept:
                connection.release()
                answer(error="the kernel has ended")
                return
            # It may be attached already, even by who has waited with this one.
            for other, (one, _) in [*self._attached.items()]:
                if one is found:
                    self.detach(link, other)
            if found.is_settling:
                found.when_settled(attach, REATTACH_TIMEOUT)
                return
            self._last += 1
            stream = self._last
            received = found.memo.received if number is None else number
            answer(stream=stream, received=received, last=kept.ring.next - 1)
            self._attached[stream] = (found, link)
            reader = kept.ring.reader(received + 1)
            found.attach(Stream(stream, reader, link.send, self._loop.call_later), connection)

        attach()

    def detach(self, link: Link, stream: int) -> None:
        """Disconnect a client."""
        attached = self._attached.pop(stream, None)
        if attached is not None:
            attached[0].detach()

    def detach_all(self, link: Link | None = None, *, but: Link | None = None) -> None:
        """Disconnect the clients of a server that has ended.

        :param link: its link; ``None``: those of all links
        :param but: the link of a server that is there
        """
        for number, (_, other) in [*self._attached.items()]:
            if other is link or (link is None and other is not but):
                self.detach(other, number)

    def suspend_all(self) -> None:
        """Send nothing to the clients of a server whose link has ended while it runs on."""
        for client, _ in self._attached.values():
            client.suspend()

    def release_all(self, *, but: Link | None = None) -> None:
        """Let go of clients whose connections a server still has: it may attach them again.

        :param but: its link now
        """
        for number, (client, link) in [*self._attached.items()]:
            if link is not but:
                del self._attached[number]
                client.release()

    def drop(self, kernel: Kernel) -> None:
        """Forget the clients of a kernel that is forgotten."""
        for number, (client, _) in [*self._attached.items()]:
            if kernel.clients.get(client.memo.client) is client:
                del self._attached[number]

    def request(self, link: Link, packet: Packet) -> None:
        """Send a client's message to its kernel."""
        attached = self._attached.get(packet.number)
        if attached is not None and attached[1] is link:
            # What is wrong with it is that client's matter only.
            self._loop.call(lambda: attached[0].send(packet.channel, packet.frames))

    def passed_on(self, link: Link, stream: int, size: int) -> None:
        """Send more to a client: it was passed on so many bytes."""
        attached = self._attached.get(stream)
        if attached is not None and attached[0].stream is not None:
            attached[0].stream.passed_on(size)

    def confirm(self) -> bool:
        """Note what clients have by now.

        :returns: whether something is on its way to one
        """
        are_under_way = [client.confirm() for client, _ in self._attached.values()]
        return any(are_under_way)

    def take_forwarded(self) -> dict[int, int]:
        """Return how many more messages of each stream's client were forwarded."""
        forwarded = {}
        for stream, (client, _) in self._attached.items():
            if client.unconfirmed:
                forwarded[stream] = client.unconfirmed
                client.unconfirmed = 0
        return forwarded


def _connection(link: Link, has_peer: bool) -> Connected:
    """Return a client's connection, whose descriptors have come.

    :raises ProtocolError: they have not
    """
    delivery = link.take_file()
    if delivery is None:
        raise ProtocolError("no descriptor came with it")
    file = link.take_file() if has_peer else None
    return Connected(None if file is None else Peer(file), Delivery(delivery))
