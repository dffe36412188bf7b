"""What is masked of what a kernel has written: its key, tokens, and its environment's values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MASK = "[...]"

SHORTEST = 6
"""Characters; what is shorter tells too little, and would be masked in the midst of words."""

# Variables whose values are no secret, and are in every other line of a log.
_HARMLESS = re.compile(
    r"PATH|HOME|PWD|OLDPWD|USER|LOGNAME|SHELL|SHLVL|HOSTNAME|TERM|TERM_\w+|COLORTERM|LANG|LANGUAGE"
    r"|LC_\w+|TZ|TMPDIR|EDITOR|VISUAL|(GIT_)?PAGER|DEBIAN_FRONTEND|VIRTUAL_ENV\w*|CONDA_\w+"
    r"|PYTHON\w*|PYDEVD_\w+|PYENV_\w+|XDG_\w+_(HOME|DIRS?)|IPYTHONDIR|JUPYTER_\w+_(DIR|DIRS|PATH)"
    r"|JPY_SESSION_NAME|JPY_PARENT_PID|MPLBACKEND|CLICOLOR\w*|FORCE_COLOR|NO_COLOR"
    r"|JUPYTER_SESSIONS_KERNEL|SYSTEMD_EXEC_PID|INVOCATION_ID|JOURNAL_STREAM|_"
)


# Names that say it: their values are secret also where they look like a path.
_SECRET = re.compile(r"AUTH|CRED|KEY|PASS|SECRET|TOKEN", re.IGNORECASE)

_KEY = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{24}\b")
"""A key as jupyter_client makes them: also of other kernels, and of those that are gone."""


def secrets_of(connection: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what is not to be shown of a kernel's connection and of its environment.

    No name and no value says that it is none: all are taken for one but paths, and the variables
    that every system has. A value of several lines is one in each: their ends are often escaped.
    """
    key = connection.get("key", b"")
    yield key.decode(errors="replace") if isinstance(key, bytes) else str(key)
    for name, value in environment.items():
        is_harmless = value.startswith("/") or _HARMLESS.fullmatch(name)
        if _SECRET.search(name) or not is_harmless:
            yield from value.splitlines()


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text without the secrets."""
    # One after the other: one pattern of all takes seven times as long, and stops the event loop.
    for secret in sorted(_long_enough(secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _KEY.sub(MASK, text)


def without_rest(text: str, secrets: Iterable[str]) -> str:
    """Return a text without the rest of a secret that it begins with, having been cut there."""
    return text[max((_length_of_rest(text, s) for s in _long_enough(secrets)), default=0) :]


def _length_of_rest(text: str, secret: str) -> int:
    """Return with how much of a secret's end a text begins; what is too short tells too little."""
    begin = secret.find(text[:SHORTEST], 1)
    while begin != -1 and not text.startswith(secret[begin:]):
        begin = secret.find(text[:SHORTEST], begin + 1)
    return len(secret) - begin if begin != -1 else 0


def _long_enough(secrets: Iterable[str]) -> set[str]:
    return {secret for secret in secrets if len(secret) >= SHORTEST}
