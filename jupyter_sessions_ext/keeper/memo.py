"""What another keeper must know of a client: in a small file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_SUFFIX = ".client"
MOST_PENDING = 2000
"""Requests without a reply that are known; of more, the latest."""


class Memo:
    """A client's file.

    :param received: the number of the last message that it is known to have
    :param pending: ids of its requests that the kernel has not replied to, each with the name of
        the sockets that the reply goes to
    """

    def __init__(
        self,
        folder: Path,
        kernel_id: str,
        client: bytes,
        received: int,
        pending: Mapping[str, str],
    ) -> None:
        name = hashlib.blake2b(client, key=kernel_id.encode()[:64], digest_size=16).hexdigest()
        self.path = folder / f"{name}{_SUFFIX}"
        self.kernel_id = kernel_id
        self.client = client
        self.received = received
        self.pending = dict(pending)
        self._file: int | None = None
        self._size = 0

    @classmethod
    def load(cls, path: Path) -> Memo:
        """Read what another keeper has noted.

        :raises ValueError: it is none
        :raises OSError: it cannot be read
        """
        try:
            noted = json.loads(path.read_bytes())
            return cls(
                path.parent,
                noted["kernel"],
                noted["client"].encode(),
                int(noted["received"]),
                {str(asked): str(name) for asked, name in noted["pending"].items()},
            )
        except (LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path.name} is no memo: {error!r}") from error

    @classmethod
    def all(cls, folder: Path) -> Iterable[Path]:
        """Return the files of a folder."""
        return folder.glob(f"*{_SUFFIX}")

    def asks(self, asked: str, name: str) -> None:
        """Note a request of the client's."""
        self.pending[asked] = name
        while len(self.pending) > MOST_PENDING:
            del self.pending[next(iter(self.pending))]
        self.write()

    def write(self) -> None:
        """Note how it is now. On a full disk it is not noted."""
        noted = {
            "kernel": self.kernel_id,
            "client": self.client.decode(),
            "received": self.received,
            "pending": self.pending,
        }
        data = json.dumps(noted).encode()
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._size = os.fstat(self._file).st_size
            # One call, for each cell waits for it: blanks cover what was longer; JSON allows them.
            self._size = max(self._size, len(data))
            os.pwrite(self._file, data.ljust(self._size), 0)

    def rest(self) -> None:
        """Close the file, until it is written again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def remove(self) -> None:
        """Forget it."""
        self.rest()
        with contextlib.suppress(OSError):
            self.path.unlink()
