"""``python -m jupyter_sessions_ext.keeper FOLDER``: run a keeper; a server does."""

from __future__ import annotations

import sys
from pathlib import Path

from .server import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
