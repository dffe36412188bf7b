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


def secrets_of(connection: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what is not to be shown of a kernel's connection and of its environment.

    No name and no value says that it is a secret: all are taken for one but paths, and the
    variables that every system has.
    """
    key = connection.get("key", b"")
    yield key.decode(errors="replace") if isinstance(key, bytes) else str(key)
    for name, value in environment.items():
        if not value.startswith("/") and not _HARMLESS.fullmatch(name):
            yield value


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text without the secrets."""
    found = sorted({s for s in secrets if len(s) >= SHORTEST}, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, found)), MASK, text) if found else text
