"""What another keeper must know of a client: in a small file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

_SUFFIX = ".client"
_NOTED = 100
"""Requests without a reply that are noted."""


class Memo:
    """A client's file.

    :param received: the number of the last message that it is known to have
    :param pending: ids of its requests that the kernel has not replied to
    """

    def __init__(
        self, folder: Path, kernel_id: str, client: bytes, received: int, pending: Iterable[str]
    ) -> None:
        name = hashlib.blake2b(client, key=kernel_id.encode()[:64], digest_size=16).hexdigest()
        self.path = folder / f"{name}{_SUFFIX}"
        self.kernel_id = kernel_id
        self.client = client
        self.received = received
        self.pending = dict.fromkeys(pending)

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
                [str(asked) for asked in noted["pending"]],
            )
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{path.name} is no memo: {error!r}") from error

    @classmethod
    def all(cls, folder: Path) -> Iterable[Path]:
        """Return the files of a folder."""
        return folder.glob(f"*{_SUFFIX}")

    def write(self) -> None:
        """Note how it is now. On a full disk it is not noted."""
        noted = {
            "kernel": self.kernel_id,
            "client": self.client.decode(),
            "received": self.received,
            "pending": [*self.pending][-_NOTED:],
        }
        data = json.dumps(noted).encode()
        with contextlib.suppress(OSError):
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Longer first: who is killed in between leaves blanks at its end; JSON allows it.
                size = os.fstat(file).st_size
                os.pwrite(file, data.ljust(size), 0)
                os.ftruncate(file, len(data))
            finally:
                os.close(file)

    def remove(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)
