"""What ``/api/sessions`` takes and answers, as structs: they validate it and describe it."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

from ..wire import (
    InvalidBodyError,
    Kernel,
    KernelId,
    KernelName,
    Name,
    NamedDocument,
    Path,
    Type,
    check_path,
)

# ---------------------------------------------------------------------- requests


class KernelChoice(Struct):
    """The kernel of a session: one that runs, or a new one. An id goes before a name."""

    id: KernelId | None = None
    name: KernelName | None = None


class Document(Struct):
    """The document of a notebook's session, in the form of Notebook 4. Deprecated."""

    path: Path | UnsetType = UNSET
    name: Name | UnsetType | None = UNSET


class CreateSession(Struct):
    """A session to be opened. ``path`` and ``type``, or the deprecated ``notebook``."""

    path: Path | UnsetType = UNSET
    type: Type | UnsetType = UNSET
    name: Name | None = None
    kernel: KernelChoice = field(default_factory=KernelChoice)
    notebook: Document | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.notebook is not UNSET:
            self.type = "notebook"
            if self.notebook.name is not UNSET:
                if self.notebook.name is None:
                    raise InvalidBodyError("notebook.name: must be a string")
                self.path = self.notebook.name
            elif self.notebook.path is not UNSET:
                self.path = self.notebook.path
        check_path(self.path)
        for name in ("path", "type"):
            if getattr(self, name) is UNSET:
                raise InvalidBodyError(f"Missing field in JSON data: {name}")

    def values(self) -> dict[str, Any]:
        """Return the columns of the new session."""
        return {"path": self.path, "type": self.type, "name": self.name}


class ChangeSession(Struct):
    """What is to be changed of a session."""

    path: Path | UnsetType = UNSET
    type: Type | UnsetType = UNSET
    name: Name | UnsetType | None = UNSET
    kernel: KernelChoice = field(default_factory=KernelChoice)
    notebook: Document | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.notebook is not UNSET and self.notebook.path is not UNSET:
            self.path, self.type = self.notebook.path, "notebook"
        check_path(self.path)
        if self.kernel.name == "" and self.kernel.id is None:
            raise InvalidBodyError("kernel.name: must not be empty")

    def values(self) -> dict[str, str | None]:
        """Return the columns that are to be changed."""
        columns = {"path": self.path, "name": self.name, "type": self.type}
        values = {k: v for k, v in columns.items() if not isinstance(v, UnsetType)}
        return values if self.kernel.id is None else {**values, "kernel_id": self.kernel.id}


# ---------------------------------------------------------------------- answers


class Session(Struct):
    """A live session."""

    id: str
    path: str
    name: str | None
    type: str
    kernel: Kernel
    notebook: NamedDocument | UnsetType = UNSET


class KernelUnavailable(Struct):
    """Why there is no kernel of that name."""

    message: str
    short_message: str
